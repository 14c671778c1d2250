import { canonicalHost, type Host } from './host.ts';
import { refused, type Refusal } from './refusal.ts';

export interface Authority {
  readonly type: 'authority';
  /** As it was written; an IPv6 address with its brackets. */
  readonly hostText: string;
  /** Canonical. */
  readonly host: Host;
  /** 1 to 65535; undefined when none was written. */
  readonly port: number | undefined;
}

/** Characters of the longest name with a port, with room for names that are not in their one form. */
const MAX_AUTHORITY = 512;

/** Reads `HOST` or `HOST:PORT`; an IPv6 address stands in brackets. No user, no path, no blank. */
export function parseAuthority(text: string): Authority | Refusal {
  if (text.length > MAX_AUTHORITY) return refused('bad-authority', 'The authority is too long.');
  const [, hostText, portText] = /^(\[[^\]]*\]|[^:[\]]*)(?::(.*))?$/s.exec(text) ?? [];
  if (hostText === undefined) return refused('bad-authority', 'The authority is not HOST:PORT.', 0);
  let port: number | undefined;
  if (portText !== undefined) {
    if (!/^[1-9][0-9]{0,4}$/.test(portText) || Number(portText) > 65_535) {
      return refused('bad-authority', 'The authority has no port from 1 to 65535.', hostText.length + 1);
    }
    port = Number(portText);
  }
  const host = canonicalHost(hostText);
  return host.type === 'refused' ? host : { type: 'authority', hostText, host, port };
}

/** Reads the target of CONNECT: an authority with its port. */
export function parseConnectTarget(text: string): (Authority & { readonly port: number }) | Refusal {
  const authority = parseAuthority(text);
  if (authority.type === 'refused') return authority;
  if (authority.port === undefined) return refused('bad-authority', 'CONNECT names no port.', text.length);
  return { ...authority, port: authority.port };
}
