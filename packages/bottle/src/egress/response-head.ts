import { elementsOf, parseFields, valuesOf, type Field } from '../net/http-fields.ts';

export type ResponseFraming =
  | { readonly type: 'none' }
  | { readonly type: 'length'; readonly bytes: number }
  | { readonly type: 'chunked' }
  | { readonly type: 'until-close' };

export interface ResponseHead {
  readonly status: number;
  readonly phrase: string;
  readonly headers: readonly Field[];
  /** Of an answer to the method that was asked with. */
  readonly body: ResponseFraming;
  readonly keepAlive: boolean;
  readonly headBytes: number;
}

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?$/;

/**
 * Reads the head of a response from the first bytes of it (RFC 9112, 4 and 6.3); a string says what is wrong with it, undefined that
 * more bytes are needed.
 */
export function parseResponseHead(bytes: Buffer, method: string): ResponseHead | string | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const [line = '', ...lines] = bytes.toString('latin1', 0, end).split('\r\n');
  const [, minor, statusText, phrase = ''] = STATUS_LINE.exec(line) ?? [];
  if (minor === undefined || statusText === undefined) return 'the status line is not that of HTTP/1';
  const headers = parseFields(lines, 0);
  if ('type' in headers) return 'a header field is malformed';
  const status = Number(statusText);
  const body = framingOf(status, method, headers);
  if (typeof body === 'string') return body;
  const connection = elementsOf(headers, 'connection');
  const keepAlive = minor === '1' ? !connection.includes('close') : connection.includes('keep-alive');
  return { status, phrase, headers, body, keepAlive: keepAlive && body.type !== 'until-close', headBytes: end + 4 };
}

function framingOf(status: number, method: string, headers: readonly Field[]): ResponseFraming | string {
  if (method === 'HEAD' || status < 200 || status === 204 || status === 304) return { type: 'none' };
  const codings = elementsOf(headers, 'transfer-encoding');
  // Beside a coding a length counts for nothing; it is not passed on.
  if (codings.length > 0) return codings.join() === 'chunked' ? { type: 'chunked' } : 'a transfer coding is unknown';
  const lengths = new Set(valuesOf(headers, 'content-length'));
  if (lengths.size === 0) return { type: 'until-close' };
  const [length = ''] = lengths;
  if (lengths.size > 1 || !/^[0-9]{1,15}$/.test(length)) return 'the length is not one number';
  return Number(length) === 0 ? { type: 'none' } : { type: 'length', bytes: Number(length) };
}

const HOP_BY_HOP: ReadonlySet<string> = new Set([
  ...['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'te', 'transfer-encoding', 'upgrade'],
  // Whether the next hop is another server is for the operator to say.
  ...['alt-svc', 'content-length'],
]);

/** The fields that are passed on, without those for one hop and those that tell where the body ends. */
export function endToEnd(headers: readonly Field[]): readonly Field[] {
  const named = elementsOf(headers, 'connection');
  return headers.filter(([name]) => !HOP_BY_HOP.has(name) && !named.includes(name));
}
