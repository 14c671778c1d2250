import { canonicalHost, type Host } from './host.ts';

/** What a route or the deny list names: one host, or the names below one. */
export type HostPattern =
  | { readonly type: 'host'; readonly host: Host }
  /** Names that end in `.base`; not the base itself. */
  | { readonly type: 'below'; readonly base: string };

/** Reads a host or `*.NAME`; undefined when it is neither. A star stands for one or more labels and only at the beginning. */
export function parseHostPattern(text: string): HostPattern | undefined {
  const wildcard = text.startsWith('*.');
  const host = canonicalHost(wildcard ? text.slice(2) : text);
  if (host.type === 'refused') return undefined;
  if (!wildcard) return { type: 'host', host };
  return host.type === 'name' ? { type: 'below', base: host.text } : undefined;
}

export function patternMatches(pattern: HostPattern, host: Host): boolean {
  if (pattern.type === 'host') return pattern.host.type === host.type && pattern.host.text === host.text;
  return host.type === 'name' && host.text.endsWith(`.${pattern.base}`);
}

/** Of two patterns that match one host, the one with the greater number says more about it. */
export function specificity(pattern: HostPattern): number {
  return pattern.type === 'host' ? Number.POSITIVE_INFINITY : pattern.base.length;
}
