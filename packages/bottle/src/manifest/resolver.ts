import { parseAddress } from '../net/address.ts';

/** Reads `ADDRESS`, `ADDRESS:PORT` or `[IPV6]:PORT` as `ADDRESS:PORT`, by default port 53; undefined when it is neither. */
export function parseResolver(text: string): string | undefined {
  const [, bracketed, plain, port = '53'] = /^(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const address = parseAddress(bracketed ?? plain ?? text);
  if (address === undefined || Number(port) < 1 || Number(port) > 65_535) return undefined;
  return address.family === 4 ? `${address.text}:${port}` : `[${address.text}]:${port}`;
}
