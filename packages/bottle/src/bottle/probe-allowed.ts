import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';

import { parseHostPattern } from '../net/host-pattern.ts';
import type { EgressPolicy, EgressRequest, Pins, Route, RouteMatch } from '../net/policy.ts';
import { verdict } from '../net/verdict.ts';
import type { ProbeOutcome } from './self-probe.ts';

/** Something that the policy lets through, and how it is tried. */
export interface AllowedTarget {
  /** Canonical name or address. */
  readonly host: string;
  readonly port: number;
  /**
   * `intercepted`: TLS that the fence opens; `passed`: TLS that it does not; `plain`: HTTP.
   */
  readonly kind: 'intercepted' | 'passed' | 'plain';
  /** Left out: no request is allowed that changes nothing, so none is made. */
  readonly request?: ProbeRequest | undefined;
}

interface ProbeRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: readonly (readonly [string, string])[];
}

/** How the outcome begins when TLS was opened by somebody else than this fence. */
export const WRONG_CERTIFICATE = 'certificate';
const MOST_TARGETS = 4;
const MOST_HEAD_BYTES = 64 * 1024;
/** Methods that change nothing (RFC 9110, 9.2.1), the one with the shortest answer first. */
const SAFE_METHODS = ['HEAD', 'GET', 'OPTIONS'] as const;
const NO_PINS: Pins = { addressesOf: () => undefined, namesOf: () => [] };

/** Hosts that routes name by their whole name, those that are spoken to in TLS first; four at most. */
export function allowedTargets(policy: EgressPolicy): readonly AllowedTarget[] {
  const targets = new Map<string, AllowedTarget>();
  for (const route of policy.routes) {
    // What speaks another protocol may wait for its client to speak first.
    if (route.protocol === 'tcp') continue;
    for (const text of route.hosts) {
      const pattern = parseHostPattern(text);
      if (pattern?.type !== 'host') continue;
      for (const port of route.ports) {
        const target = targetOf(policy, route, pattern.host.text, port);
        const key = shown(pattern.host.text, port);
        if (target !== undefined && targets.get(key)?.request === undefined) targets.set(key, target);
      }
    }
  }
  const rank = ({ kind, port }: AllowedTarget) => (kind === 'plain' ? 2 : port === 443 ? 0 : 1);
  return [...targets.values()].toSorted((a, b) => rank(a) - rank(b)).slice(0, MOST_TARGETS);
}

function targetOf(policy: EgressPolicy, route: Route, host: string, port: number): AllowedTarget | undefined {
  const allows = (request: EgressRequest) => verdict(policy, request, NO_PINS).allow !== false;
  const plain = route.protocol === 'http' && port === 80;
  const asked = { port, authority: shown(host, port) } as const;
  if (!plain && !allows({ ...asked, transport: 'connect' })) return undefined;
  if (route.protocol === 'tls') return { host, port, kind: 'passed' };
  const secure = plain ? {} : { serverName: isIP(host) === 0 ? host : null };
  const transport = plain ? 'proxy' : 'connect';
  const allowed = requestsOf(route.matches).find(({ method, path, headers }) =>
    allows({ ...asked, ...secure, transport, request: { method, target: path, headers: lowerCase(headers) } }),
  );
  if (plain && allowed === undefined) return undefined;
  return { host, port, kind: plain ? 'plain' : 'intercepted', request: allowed };
}

function requestsOf(matches: readonly RouteMatch[]): readonly ProbeRequest[] {
  const all: readonly RouteMatch[] = matches.length === 0 ? [{}] : matches;
  return all.flatMap(({ path, headers = [] }) =>
    SAFE_METHODS.map((method) => ({
      method,
      path: path?.value ?? '/',
      headers: headers.map(({ name, value }) => [name, value] as const),
    })),
  );
}

function lowerCase(headers: ProbeRequest['headers']): ProbeRequest['headers'] {
  return headers.map(([name, value]) => [name.toLowerCase(), value]);
}

/** HOST:PORT */
export function shown(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/**
 * Reaches a host through the fence's proxy, over a stream that leads to it: the tunnel is granted, TLS is opened with a certificate of this fence's own authority
 * for that host, and the host answers. Never rejects. The stream is destroyed.
 */
export async function tryAllowed(stream: Duplex, target: AllowedTarget, authorityPem: string): Promise<ProbeOutcome> {
  const began = performance.now();
  const name = `allowed-${shown(target.host, target.port)}`;
  const outcome = (kind: ProbeOutcome['outcome'], detail: string): ProbeOutcome => {
    return { name, outcome: kind, elapsedMs: Math.round(performance.now() - began), detail };
  };
  try {
    const detail = await reach(stream, target, authorityPem);
    return outcome('answered', detail);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return outcome('failed', (code ?? message).slice(0, 200));
  } finally {
    stream.destroy();
  }
}

async function reach(stream: Duplex, target: AllowedTarget, authorityPem: string): Promise<string> {
  const at = shown(target.host, target.port);
  if (target.kind === 'plain') return await answerTo(stream, target, `http://${at}`);
  stream.write(`CONNECT ${at} HTTP/1.1\r\nHost: ${at}\r\n\r\n`, 'latin1');
  const granted = await readHead(stream);
  if (!granted.startsWith('HTTP/1.1 200 ')) throw new Error(refusalIn(granted));
  const passed = target.kind === 'passed';
  const secure = await openTls(stream, target.host, passed ? undefined : authorityPem);
  if (target.request === undefined || passed) return 'TLS';
  return await answerTo(secure, target, '');
}

/** Asks, and gives the first line of what the host answered. @throws when the fence answered instead */
async function answerTo(stream: Duplex, { host, port, kind, request }: AllowedTarget, base: string): Promise<string> {
  if (request === undefined) throw new Error('there is nothing to ask');
  const usual = port === (kind === 'plain' ? 80 : 443);
  const authority = usual ? shown(host, port).replace(/:[0-9]+$/, '') : shown(host, port);
  const own = ['User-Agent: decant-self-probe', 'Accept: */*', 'Connection: close'];
  const given = request.headers.map(([name, value]) => `${name}: ${value}`);
  const lines = [`${request.method} ${base}${request.path} HTTP/1.1`, `Host: ${authority}`, ...own, ...given];
  stream.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
  const head = await readHead(stream);
  if (/^decant-rule: /im.test(head)) throw new Error(refusalIn(head));
  return firstLine(head);
}

function refusalIn(head: string): string {
  return /^decant-rule: ([a-z0-9-]+)/im.exec(head)?.[1] ?? firstLine(head);
}

function firstLine(head: string): string {
  return head.slice(0, head.search(/[\r\n]|$/)).replace(/[^\x20-\x7e]/g, '?');
}

/** With an authority: the certificate must be one of it, and for the host. */
function openTls(stream: Duplex, host: string, authorityPem: string | undefined): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const secure = connectTls({
      socket: stream,
      host,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ALPNProtocols: ['http/1.1'],
      ...(authorityPem === undefined ? { rejectUnauthorized: false } : { ca: [authorityPem] }),
    });
    secure.on('error', (error: NodeJS.ErrnoException) => {
      const { code = '' } = error;
      // Codes of verification have no prefix; those of the handshake do.
      const verified = code.startsWith('ERR_TLS_CERT') || /^(?!E[A-Z]+$|ERR_)[A-Z0-9_]+$/.test(code);
      reject(verified && authorityPem !== undefined ? new Error(`${WRONG_CERTIFICATE} ${code}`) : error);
    });
    secure.once('close', () => reject(new Error('the connection was closed')));
    secure.once('secureConnect', () => resolve(secure));
  });
}

/** The head of a message, up to its empty line. What follows is of no concern. */
function readHead(stream: Duplex): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const onData = (data: Buffer) => {
      text += data.toString('latin1');
      if (text.includes('\r\n\r\n')) settle();
      else if (text.length > MOST_HEAD_BYTES) settle(new Error('the answer has no end'));
    };
    const onEnd = () => settle(new Error('EOF'));
    const settle = (error?: Error) => {
      stream.pause();
      stream.off('data', onData).off('end', onEnd).off('close', onEnd).off('error', settle);
      if (error === undefined) resolve(text);
      else reject(error);
    };
    stream.on('data', onData).on('end', onEnd).on('close', onEnd).on('error', settle);
    stream.resume();
  });
}
