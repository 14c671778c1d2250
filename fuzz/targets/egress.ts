import {
  canonicalHost,
  ChunkedBody,
  encodeDnsAnswer,
  parseClientHello,
  parseConnectTarget,
  parseDnsQuery,
  parseRequestHead,
  type Refusal,
} from '../../packages/bottle/src/index.ts';
import { DecantError } from '../../packages/core/src/index.ts';
import type { Random } from '../random.ts';
import { Finding, requireEqualBytes, type FuzzTarget } from '../target.ts';

/** The parsers of what comes out of a bottle give a refusal instead of throwing; the fuzzer counts errors. */
function refuse(refusal: Refusal): never {
  throw new DecantError('USAGE', refusal.reason, { details: { rule: refusal.rule, offset: refusal.offset } });
}

const common = { refusals: ['USAGE'], maxMs: 500, maxMemoryBytes: 16 * 2 ** 20 } as const satisfies Partial<FuzzTarget>;
const NAMES = [
  'a.test',
  'api.example.com',
  'xn--bcher-kva.example',
  'B.Test.',
  '203.0.113.9',
  '[2001:db8::1]',
  'a-b.c1',
];

/** What follows the first `length` bytes must not matter, and fewer must not be enough. */
function requirePrefixes<T extends { readonly type: string }>(
  bytes: Uint8Array,
  length: number,
  parse: (bytes: Uint8Array) => T,
  result: T,
) {
  for (const rest of ['', 'GET / x']) {
    const other = parse(Buffer.concat([bytes.subarray(0, length), Buffer.from(rest)]));
    if (JSON.stringify(other) !== JSON.stringify(result)) throw new Finding('what follows changes what was read');
  }
  for (let at = 0; at < length; at += 1 + Math.floor(length / 16)) {
    if (parse(bytes.subarray(0, at)).type !== 'incomplete') {
      throw new Finding(`the first ${at} of ${length} bytes are not incomplete`);
    }
  }
}

export const connectTarget: FuzzTarget = {
  ...common,
  name: 'connect',
  generate: (random) => Buffer.from(`${random.pick(NAMES)}:${random.between(1, 65_535)}`),
  check: (bytes) => {
    const read = parseConnectTarget(Buffer.from(bytes).toString('latin1'));
    if (read.type === 'refused') refuse(read);
    if (!/^(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|[0-9a-f:]+)$/.test(read.host.text))
      throw new Finding(`the host ${read.host.text} is not canonical`);
    const again = canonicalHost(read.host.text);
    if (again.type !== read.host.type || again.text !== read.host.text)
      throw new Finding('the canonical host has another form');
  },
};

const FIELDS = [
  'Accept: */*',
  'X-A:b',
  'Connection: close',
  'Connection: upgrade',
  'Upgrade: websocket',
  'Expect: 100-continue',
  'Cookie: a=b; c=d',
];

function generateHead(random: Random): Uint8Array {
  const host = random.pick(NAMES);
  const lines = [`Host: ${host}`, ...Array.from({ length: random.below(6) }, () => random.pick(FIELDS))];
  let body = '';
  if (random.chance(0.3)) {
    body = '5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n';
    lines.push('Transfer-Encoding: chunked');
  } else if (random.chance(0.4)) {
    body = 'hello';
    lines.push('Content-Length: 5');
  }
  const line = random.pick([
    `GET /a/b?c=${random.u32()}`,
    `POST http://${host}/x`,
    `CONNECT ${host}:443`,
    'OPTIONS *',
    'PUT /%41',
  ]);
  if (line.startsWith('CONNECT')) return Buffer.from(`${line} HTTP/1.1\r\nHost: x\r\n\r\n`);
  return Buffer.from(`${line} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n${body}`);
}

export const httpHeadTarget: FuzzTarget = {
  ...common,
  name: 'http-head',
  generate: generateHead,
  check: (bytes) => {
    const read = parseRequestHead(bytes);
    if (read.type === 'refused') refuse(read);
    if (read.type === 'incomplete') throw new DecantError('USAGE', 'The head does not end.');
    requirePrefixes(bytes, read.headBytes, (part) => parseRequestHead(part), read);
    const written = [`${read.method} `, ...read.headers.map(([name, value]) => `${name}: ${value}`)].join('\r\n');
    if (/(?![\t\r\n\u0080-\u009f])\p{Cc}|\r(?!\n)|(?<!\r)\n/u.test(written))
      throw new Finding('a control character is in what was read');
    if (read.headers.filter(([name]) => /^(?:content-length|transfer-encoding|host)$/.test(name)).length > 2)
      throw new Finding('the body ends in two places');
    if (read.body.type !== 'chunked') return;
    const rest = bytes.subarray(read.headBytes);
    const [whole, split] = [chunked(rest, rest.length), chunked(rest, 1)];
    if (whole !== split) throw new Finding('a chunked body depends on how it comes');
  },
};

/** What a chunked body says when it comes in pieces of a size. */
function chunked(bytes: Uint8Array, size: number): string {
  const body = new ChunkedBody();
  let text = '';
  for (let at = 0; at < bytes.length; at += size) {
    const step = body.push(bytes.subarray(at, at + size));
    if (step.type === 'refused') return `refused: ${step.rule}`;
    text += step.data.map((piece) => Buffer.from(piece).toString('latin1')).join('');
    if (step.done) return `${text} and ${step.trailers.length} trailers`;
  }
  return 'incomplete';
}

const u16 = (value: number) => [value >> 8, value & 0xff];
const vector = (bytes: readonly number[]) => [...u16(bytes.length), ...bytes];

function helloOf(message: readonly number[], size: number): Uint8Array {
  const records: number[] = [];
  for (let at = 0; at < message.length; at += size) records.push(22, 3, 1, ...vector(message.slice(at, at + size)));
  return Uint8Array.from(records);
}

export const clientHelloTarget: FuzzTarget = {
  ...common,
  name: 'client-hello',
  generate: (random) => {
    const name = [...Buffer.from(random.pick(NAMES.slice(0, 4)))];
    const extensions = [
      ...(random.chance(0.9) ? [0, 0, ...vector(vector([0, ...vector(name)]))] : []),
      ...(random.chance(0.5) ? [0, 16, ...vector(vector([2, 0x68, 0x32, 8, ...Buffer.from('http/1.1')]))] : []),
      ...(random.chance(0.2) ? [0xfe, 0x0d, ...vector([...random.bytes(40)])] : []),
      ...(random.chance(0.5) ? [0x0a, 0x0a, 0, 0, 0, 43, 0, 3, 2, 3, 4] : []),
    ];
    const session = [...random.bytes(random.pick([0, 32]))];
    const body = [3, 3, ...random.bytes(32), session.length, ...session, 0, 2, 0x13, 1, 1, 0, ...vector(extensions)];
    return helloOf([1, 0, ...vector(body)], random.pick([16_384, 16_384, 100, 20]));
  },
  check: (bytes) => {
    const read = parseClientHello(bytes);
    if (read.type === 'refused') refuse(read);
    if (read.type === 'incomplete') throw new DecantError('USAGE', 'The ClientHello does not end.');
    if (read.serverName !== null && !/^[!-~]{1,2048}$/.test(read.serverName))
      throw new Finding('the server name is not printable');
    // The same message in one record says the same.
    const message: number[] = [];
    for (let at = 0; at + 5 <= bytes.length; at += 5 + ((bytes[at + 3]! << 8) | bytes[at + 4]!)) {
      message.push(...bytes.subarray(at + 5, at + 5 + ((bytes[at + 3]! << 8) | bytes[at + 4]!)));
    }
    const size = 4 + ((message[1]! << 16) | (message[2]! << 8) | message[3]!);
    const whole = parseClientHello(helloOf(message.slice(0, size), 16_384));
    if (JSON.stringify(whole) !== JSON.stringify(read)) throw new Finding('a ClientHello depends on how it is cut');
  },
};

export const dnsTarget: FuzzTarget = {
  ...common,
  name: 'dns',
  generate: (random) => {
    const labels = random.pick(['a.test', 'api.example.com', 'x.y.z.test']).split('.');
    const name = [...labels.flatMap((label) => [label.length, ...Buffer.from(label)]), 0];
    const edns = random.chance(0.5);
    const opt = edns ? [0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, ...random.bytes(8)] : [];
    return Uint8Array.from([
      ...random.bytes(2),
      1,
      0,
      0,
      1,
      0,
      0,
      0,
      0,
      0,
      edns ? 1 : 0,
      ...name,
      0,
      random.pick([1, 28, 16, 65]),
      0,
      1,
      ...opt,
    ]);
  },
  check: (bytes) => {
    const read = parseDnsQuery(bytes);
    if (read.type === 'refused') refuse(read);
    requireEqualBytes('the question', read.question, bytes.subarray(12, 12 + read.question.length));
    const answer = encodeDnsAnswer(read, { rcode: 'NOERROR', addresses: ['203.0.113.1', '2001:db8::1'] }, 'udp');
    // An answer to our own question is read as an answer, and repeats the question.
    if (parseDnsQuery(answer).type !== 'refused') throw new Finding('an answer is taken for a question');
    requireEqualBytes('the question in the answer', answer.subarray(12, 12 + read.question.length), read.question);
    if (answer.length > bytes.length + 64) throw new Finding('an answer is far larger than its question');
  },
};
