import type { Attempt } from './escape-case.ts';

/** The text of a request, as it would be sent. */
export const get = (host: string, ...more: readonly string[]): string =>
  [`GET / HTTP/1.1`, `Host: ${host}`, ...more, '', ''].join('\r\n');
/** Asks the proxy for a tunnel. */
export const connect = (target: string, more: Partial<Attempt> = {}): Attempt => ({ do: 'connect', target, ...more });
/** A plain connection, which is caught where it is none of the bottle's own. */
export const tcp = (address: string, port: number, send = get('allowed.test')): Attempt => ({
  do: 'tcp',
  address,
  port,
  send,
});
export const direct = (url: string): Attempt => ({ do: 'get', url, proxied: false });
export const proxied = (url: string): Attempt => ({ do: 'get', url });
