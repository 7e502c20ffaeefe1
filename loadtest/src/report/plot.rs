//! Draws one chart as SVG, in a given size.

use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;

/// The factor of the drawing's size to the shown size: Plotters draws at whole pixels only.
const FINE: i32 = 4;

/// Pixels between the centres of two labels above each other.
const LABEL_GAP_PX: i32 = 16;

pub(super) const INK: RGBColor = RGBColor(0x1b, 0x27, 0x33);
pub(super) const MUTED: RGBColor = RGBColor(0x5b, 0x69, 0x75);
const GRID: RGBColor = RGBColor(0xe3, 0xe8, 0xec);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// For desktops and paper: each line has its name at its end.
    Wide,
    /// For phones: the names are above the chart.
    Narrow,
}

impl Width {
    fn size(self) -> (i32, i32) {
        match self {
            Self::Wide => (960, 330),
            Self::Narrow => (360, 280),
        }
    }

    /// The text size in pixels. The narrow chart is shown at its size, the wide one is often scaled
    /// down.
    fn text_px(self) -> f64 {
        match self {
            Self::Wide => 14.0,
            Self::Narrow => 13.0,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        }
    }
}

#[derive(Debug)]
pub(super) struct Plot {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) x_title: &'static str,
    pub(super) alternative: String,
    /// Shaded ranges of x.
    pub(super) bands: Vec<(f64, f64)>,
    pub(super) lines: Vec<Line>,
    pub(super) dots: Vec<Dot>,
    /// A horizontal line at this y, with its name.
    pub(super) limit: Option<(f64, String)>,
    /// A vertical line at this x, with its name.
    pub(super) mark: Option<(f64, String)>,
}

/// A line with gaps between its parts.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: RGBColor,
    pub(super) stroke: Stroke,
    pub(super) stretches: Vec<Vec<(f64, f64)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    Plain,
    Dashed,
    /// Broad, behind the others.
    Broad,
}

#[derive(Debug, Clone)]
pub(super) struct Dot {
    pub(super) at: (f64, f64),
    pub(super) colour: RGBColor,
    pub(super) filled: bool,
}

/// The error of drawing. Drawing into a string does not fail in the present version of Plotters.
pub(super) type DrawError = DrawingAreaErrorKind<std::io::Error>;

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

impl Plot {
    pub(super) fn draw(&self, width: Width) -> Result<Markup, DrawError> {
        let (w, h) = width.size();
        let mut svg = String::new();
        self.draw_into(&mut svg, width)?;
        let inner = svg.find('>').map_or("", |end| &svg[end + 1..]);
        let inner = inner.trim_end().strip_suffix("</svg>").unwrap_or(inner);
        Ok(html! {
            svg class=(width.class()) viewBox={"0 0 " (w * FINE) " " (h * FINE)} role="img"
                aria-label=(self.alternative) {
                (PreEscaped(inner))
            }
        })
    }

    fn draw_into(&self, svg: &mut String, width: Width) -> Result<(), DrawError> {
        let (w, h) = width.size();
        let size = ((w * FINE) as u32, (h * FINE) as u32);
        let root = SVGBackend::with_string(svg, size).into_drawing_area();
        let right = match width {
            Width::Wide => 14 + self.longest_name() * 8,
            Width::Narrow => 14,
        };
        let mut chart = ChartBuilder::on(&root)
            .margin_top(18 * FINE)
            .margin_right(right * FINE)
            .x_label_area_size(46 * FINE)
            .y_label_area_size(64 * FINE)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;

        let (bottom, top) = (self.y.low(), self.y.high());
        let bands = self.bands.iter().map(|(from, to)| {
            Rectangle::new([(*from, bottom), (*to, top)], RGBColor(0xfb, 0xe4, 0xe6).filled())
        });
        chart.draw_series(bands)?;
        chart
            .configure_mesh()
            .x_labels(if width == Width::Wide { 10 } else { 5 })
            .y_labels(12)
            .bold_line_style(stroke(GRID, 1.0))
            .axis_style(TRANSPARENT)
            .set_all_tick_mark_size(3 * FINE)
            .label_style(text(width.text_px(), MUTED))
            .axis_desc_style(text(width.text_px(), MUTED))
            .x_desc(self.x_title)
            .draw()?;
        let baseline = [(self.x.low(), bottom), (self.x.high(), bottom)];
        chart.draw_series(LineSeries::new(baseline, stroke(MUTED, 1.0)))?;

        self.draw_limit(&root, &mut chart, width)?;
        self.draw_mark(&root, &mut chart, width)?;
        for line in &self.lines {
            line.draw(&mut chart)?;
        }
        for dot in &self.dots {
            dot.draw(&mut chart)?;
        }
        if width == Width::Wide {
            self.name_lines(&root, &chart)?;
        }
        root.present()
    }

    fn longest_name(&self) -> i32 {
        let longest = self.lines.iter().map(|line| line.name.chars().count()).max();
        longest.unwrap_or(0).min(20) as i32
    }

    fn draw_limit<'b>(
        &self,
        root: &Root<'b>,
        chart: &mut Chart<'_, 'b>,
        width: Width,
    ) -> Result<(), DrawError> {
        let Some((height, name)) = &self.limit else { return Ok(()) };
        let ends = [(self.x.low(), *height), (self.x.high(), *height)];
        chart.draw_series(dashes(ends.to_vec(), INK, 1.5))?;
        let (x, y) = chart.backend_coord(&ends[0]);
        let style = text(width.text_px(), INK).pos(Pos::new(HPos::Left, VPos::Bottom));
        root.draw(&Text::new(name.as_str(), (x + 6 * FINE, y - 2 * FINE), style))
    }

    fn draw_mark<'b>(
        &self,
        root: &Root<'b>,
        chart: &mut Chart<'_, 'b>,
        width: Width,
    ) -> Result<(), DrawError> {
        let Some((place, name)) = &self.mark else { return Ok(()) };
        let ends = [(*place, self.y.low()), (*place, self.y.high())];
        chart.draw_series(dashes(ends.to_vec(), INK, 1.5))?;
        let (x, y) = chart.backend_coord(&ends[1]);
        let side = if self.x.position(*place) > 0.5 { HPos::Right } else { HPos::Left };
        let style = text(width.text_px(), INK).pos(Pos::new(side, VPos::Bottom));
        root.draw(&Text::new(name.as_str(), (x, y - 3 * FINE), style))
    }

    /// Writes each name where its line ends, moved up or down if another name is there.
    fn name_lines<'b>(&self, root: &Root<'b>, chart: &Chart<'_, 'b>) -> Result<(), DrawError> {
        let mut names: Vec<_> = (self.lines.iter())
            .filter_map(|line| {
                let end = line.stretches.iter().rev().find_map(|stretch| stretch.last())?;
                Some((chart.backend_coord(end), line))
            })
            .collect();
        names.sort_by_key(|((_, y), _)| *y);
        let wanted: Vec<i32> = names.iter().map(|((_, y), _)| *y).collect();
        let (from, to) = (
            chart.backend_coord(&(self.x.low(), self.y.high())).1,
            chart.backend_coord(&(self.x.low(), self.y.low())).1,
        );
        for (((x, _), line), y) in names.iter().zip(spread(&wanted, LABEL_GAP_PX * FINE, from, to))
        {
            let colour = if line.stroke == Stroke::Broad { MUTED } else { line.colour };
            let style = text(Width::Wide.text_px(), colour).pos(Pos::new(HPos::Left, VPos::Center));
            root.draw(&Text::new(line.name.as_str(), (x + 8 * FINE, y), style))?;
        }
        Ok(())
    }
}

impl Line {
    fn draw<'b>(&self, chart: &mut Chart<'_, 'b>) -> Result<(), DrawError> {
        for stretch in &self.stretches {
            match (stretch.as_slice(), self.stroke) {
                ([], _) => {}
                ([alone], _) => {
                    let dot = Circle::new(*alone, 3 * FINE, self.colour.filled());
                    chart.draw_series([dot])?;
                }
                (_, Stroke::Dashed) => {
                    chart.draw_series(dashes(stretch.clone(), self.colour, 2.0))?;
                }
                (_, Stroke::Plain) => {
                    let style = stroke(self.colour, 2.25);
                    chart.draw_series(LineSeries::new(stretch.clone(), style))?;
                }
                (_, Stroke::Broad) => {
                    let style = stroke(self.colour, 6.0);
                    chart.draw_series(LineSeries::new(stretch.clone(), style))?;
                }
            }
        }
        Ok(())
    }
}

impl Dot {
    fn draw<'b>(&self, chart: &mut Chart<'_, 'b>) -> Result<(), DrawError> {
        let inside = if self.filled { self.colour } else { WHITE };
        chart.draw_series([Circle::new(self.at, 4 * FINE, inside.filled())])?;
        chart.draw_series([Circle::new(self.at, 4 * FINE, stroke(self.colour, 2.0))])?;
        Ok(())
    }
}

/// The positions that are closest to the wanted ones with a minimum gap. `wanted` is ascending.
fn spread(wanted: &[i32], gap: i32, from: i32, to: i32) -> Vec<i32> {
    let mut places = wanted.to_vec();
    for n in 1..places.len() {
        places[n] = places[n].max(places[n - 1] + gap);
    }
    let mut limit = to;
    for place in places.iter_mut().rev() {
        *place = (*place).min(limit);
        limit = *place - gap;
    }
    let mut limit = from;
    for place in &mut places {
        *place = (*place).max(limit);
        limit = *place + gap;
    }
    places
}

fn stroke(colour: RGBColor, width_px: f64) -> ShapeStyle {
    colour.stroke_width((width_px * f64::from(FINE)).round() as u32)
}

fn dashes(
    points: Vec<(f64, f64)>,
    colour: RGBColor,
    width_px: f64,
) -> DashedLineSeries<std::vec::IntoIter<(f64, f64)>, i32> {
    DashedLineSeries::new(points, 5 * FINE, 4 * FINE, stroke(colour, width_px))
}

/// The factor undoes that of Plotters, which divides font sizes by 1.24.
fn text(px: f64, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", px * 1.24 * f64::from(FINE)).into_font().color(&colour)
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn names_keep_their_gap_and_stay_in_range() {
        assert_eq!(spread(&[10, 100], 16, 0, 200), [10, 100]);
        assert_eq!(spread(&[10, 12, 14], 16, 0, 200), [10, 26, 42]);
        assert_eq!(spread(&[190, 195, 199], 16, 0, 200), [168, 184, 200]);
        assert_eq!(spread(&[5, 5, 5], 16, 0, 10), [0, 16, 32]);
        assert_eq!(spread(&[], 16, 0, 10), [0; 0]);
    }
}
