import type { RuleId } from '../net/refusal.ts';
import type { FenceRule } from './gate.ts';

const STATUS: Readonly<Partial<Record<RuleId | FenceRule, readonly [number, string]>>> = {
  'name-mismatch': [421, 'Misdirected Request'],
  'bad-request': [400, 'Bad Request'],
  'bad-framing': [400, 'Bad Request'],
  'bad-authority': [400, 'Bad Request'],
  'plain-http': [400, 'Bad Request'],
  'head-too-large': [431, 'Request Header Fields Too Large'],
  http2: [505, 'HTTP Version Not Supported'],
  unresolved: [502, 'Bad Gateway'],
  'slow-client': [408, 'Request Timeout'],
  'audit-backlog': [503, 'Service Unavailable'],
  'upstream-unreachable': [502, 'Bad Gateway'],
  'upstream-timeout': [504, 'Gateway Timeout'],
  'upstream-tls': [502, 'Bad Gateway'],
  'upstream-certificate': [502, 'Bad Gateway'],
  'upstream-invalid': [502, 'Bad Gateway'],
};

export function statusOf(rule: RuleId | FenceRule): number {
  return STATUS[rule]?.[0] ?? 403;
}

/** An answer that says which rule refused and why, in one sentence, and nothing of what was sent. */
export function refusalResponse(
  { rule, reason }: { readonly rule: RuleId | FenceRule; readonly reason: string },
  options: { readonly keepAlive: boolean; readonly withBody: boolean },
): string {
  const [status, phrase] = STATUS[rule] ?? [403, 'Forbidden'];
  const plain = reason.replace(/[^\x20-\x7e]/g, '?');
  const body = `decant refused this (${rule}): ${plain}\n`;
  const lines = [
    `HTTP/1.1 ${status} ${phrase}`,
    'content-type: text/plain; charset=utf-8',
    `content-length: ${body.length}`,
    'cache-control: no-store',
    `decant-rule: ${rule}`,
    `connection: ${options.keepAlive ? 'keep-alive' : 'close'}`,
  ];
  return `${lines.join('\r\n')}\r\n\r\n${options.withBody ? body : ''}`;
}

/**
 * What a client that began with the HTTP/2 preface understands (RFC 9113): empty settings, and GOAWAY with
 * HTTP_1_1_REQUIRED.
 */
export function http2Refusal(): Buffer {
  const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
  const why = Buffer.from('http2: HTTP/1.1 is spoken here', 'latin1');
  const goAway = Buffer.alloc(17);
  goAway.writeUIntBE(8 + why.length, 0, 3);
  goAway[3] = 7;
  goAway.writeUInt32BE(0xd, 13);
  return Buffer.concat([settings, goAway, why]);
}

/** A fatal TLS alert in the clear, before any handshake: `access_denied` (RFC 8446, 6.2). */
export const TLS_ACCESS_DENIED = Buffer.from([21, 3, 3, 0, 2, 2, 49]);
