// Calls the HTTP API of the host that serves this page.

/** The longest time that a call may take, in milliseconds: longer than the doctor's page of 15 s; and of the metrics, which are asked each second. */
const PATIENCE_MS = 25_000;
const PATIENCE_OF_METRICS_MS = 3_000;

// Relative to the page, so that it also works behind a prefix such as that of a stage of API Gateway.
const base = new URL('./', document.baseURI);

/** An error of the API (RFC 9457), or of the way to it. */
export class Problem extends Error {
  constructor(title, detail, status = 0, kind = '') {
    super(detail || title);
    Object.assign(this, { title, detail, status, kind });
  }
}

/** The address of a path, given as parts that are encoded here, with a query. */
export function address(parts, query = {}) {
  const url = new URL(parts.map(encodeURIComponent).join('/'), base);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, value);
  }
  return url;
}

/** The parts of the path of a log: its service, and its partition. */
export function logParts(log) {
  const slash = log.indexOf('/');
  return slash < 0 ? [log, ''] : [log.slice(0, slash), log.slice(slash + 1)];
}

// A browser rounds integers above 2^53. Those are kept as they were sent, if it can say what that was.
function exact(_, value, context) {
  const isRounded = typeof value === 'number' && !Number.isSafeInteger(value);
  return isRounded && /^-?\d+$/.test(context?.source ?? '') ? BigInt(context.source) : value;
}

async function call(url, init, patience = PATIENCE_MS) {
  let response;
  let text;
  try {
    response = await fetch(url, { ...init, signal: AbortSignal.timeout(patience), cache: 'no-store', credentials: 'same-origin' });
    text = await response.text();
  } catch (error) {
    const late = error.name === 'TimeoutError';
    throw new Problem('The host does not answer', late ? `There was no answer within ${patience / 1_000} s.` : 'The connection failed: is `up` running?');
  }
  if (response.ok) return { status: response.status, text };
  let problem = {};
  try {
    problem = JSON.parse(text);
  } catch {
    // Something on the way has answered, such as a proxy.
  }
  throw new Problem(problem.title ?? `The answer is ${response.status}`, problem.detail ?? '', response.status, String(problem.type ?? '').split(':').pop());
}

export async function get(parts, query) {
  const { status, text } = await call(address(parts, query), { headers: { accept: 'application/json' } });
  const json = JSON.parse(text, exact);
  // 202: what was waited for is not there yet.
  return status === 202 ? { ...json, pending: true } : json;
}

export async function post(parts, body) {
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  return JSON.parse((await call(address(parts), init)).text, exact);
}

/** The metrics as text. */
export async function metrics() {
  return (await call(address(['metrics']), { headers: { accept: 'application/openmetrics-text' } }, PATIENCE_OF_METRICS_MS)).text;
}
