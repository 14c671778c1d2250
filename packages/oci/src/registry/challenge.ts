/** What a registry asks for with its answer 401 (RFC 9110, section 11.6.1). */
export type Challenge =
  | { readonly scheme: 'basic' }
  | { readonly scheme: 'bearer'; readonly realm: string; readonly service: string | undefined };

const MAX_LENGTH = 8192;

/** The first challenge of a `WWW-Authenticate` header that can be met, bearer before basic. */
export function parseChallenge(header: string | null): Challenge | undefined {
  if (header === null || header.length > MAX_LENGTH) return undefined;
  let found: Challenge | undefined;
  for (const { scheme, parameters } of challenges(header)) {
    const realm = parameters.get('realm');
    if (scheme === 'bearer' && realm !== undefined) return { scheme, realm, service: parameters.get('service') };
    if (scheme === 'basic') found ??= { scheme };
  }
  return found;
}

const TOKEN = /[\w!#$%&'*+.^`|~-]+/y;

function* challenges(header: string): Generator<{ scheme: string; parameters: Map<string, string> }> {
  let current: { scheme: string; parameters: Map<string, string> } | undefined;
  let at = 0;
  while (at < header.length) {
    if (/[\s,]/.test(header[at]!)) {
      at++;
      continue;
    }
    TOKEN.lastIndex = at;
    const [token] = TOKEN.exec(header) ?? [];
    if (token === undefined) break;
    at += token.length;
    if (header[at] !== '=') {
      if (current !== undefined) yield current;
      current = { scheme: token.toLowerCase(), parameters: new Map() };
      continue;
    }
    const value = readValue(header, at + 1);
    if (value === undefined) break;
    current?.parameters.set(token.toLowerCase(), value.text);
    at = value.end;
  }
  if (current !== undefined) yield current;
}

function readValue(header: string, start: number): { readonly text: string; readonly end: number } | undefined {
  if (header[start] !== '"') {
    const end = start + (/^[^\s,]*/.exec(header.slice(start))?.[0].length ?? 0);
    return { text: header.slice(start, end), end };
  }
  let text = '';
  for (let at = start + 1; at < header.length; at++) {
    if (header[at] === '"') return { text, end: at + 1 };
    if (header[at] === '\\') at++;
    text += header[at] ?? '';
  }
  return undefined;
}
