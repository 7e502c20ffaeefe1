//! [`ViewRegistry`]: guarded puts, and the list.

use bytes::Bytes;
use futures::future::join_all;

use super::{RACERS, must};
use crate::ports::ViewRegistry;

/// The whole port. It must hold no view yet.
pub async fn view_registry(port: &dyn ViewRegistry) {
    let body = |text: &'static str| Bytes::from_static(text.as_bytes());
    let (first, second) = (body("first"), body("second"));
    let get = async |view| must("getting a view", port.get(view).await);
    let replace = async |view, before: Option<&Bytes>, body: &Bytes| {
        must("replacing a view", port.replace(view, before, body).await)
    };
    assert_eq!(must("an empty list", port.list(10).await), [], "nothing was announced");
    assert_eq!(get("v").await, None);
    assert!(!replace("v", Some(&first), &second).await, "there is nothing to replace");
    assert_eq!(get("v").await, None, "after a refused call");
    assert!(replace("v", None, &first).await);
    assert!(!replace("v", None, &second).await, "there is a body");
    assert!(!replace("v", Some(&second), &second).await, "there is another body");
    assert_eq!(get("v").await, Some(first.clone()), "after refused calls");
    assert!(replace("v", Some(&first), &second).await);
    assert_eq!(get("v").await, Some(second.clone()));
    assert_eq!(get("v-1").await, None, "another view whose name begins alike");

    let racers = (0..RACERS).map(async |racer| {
        let body = Bytes::from(format!("racer {racer}"));
        (port.replace("raced", None, &body).await, body)
    });
    let won: Vec<Bytes> = join_all(racers)
        .await
        .into_iter()
        .filter_map(|(won, body)| must("a racer's call", won).then_some(body))
        .collect();
    assert_eq!(won.len(), 1, "one racer replaces nothing");
    assert_eq!(get("raced").await.as_ref(), won.first(), "the body of the one that won");

    let mut all = must("a list", port.list(10).await);
    all.sort();
    assert_eq!(all, [("raced".to_owned(), won[0].clone()), ("v".to_owned(), second)]);
    let one = must("a list of one", port.list(1).await);
    assert_eq!(one.len(), 1, "as many as were asked for");
    assert!(all.contains(&one[0]), "one of them");
}
