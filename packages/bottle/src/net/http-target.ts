import { parseAuthority, parseConnectTarget, type Authority } from './authority.ts';
import { refused, type Refusal } from './refusal.ts';

/** The four forms of a request target (RFC 9112, 3.2). `path` has the query and is as it was sent. */
export type RequestTarget =
  | { readonly type: 'target'; readonly form: 'origin'; readonly path: string }
  | {
      readonly type: 'target';
      readonly form: 'absolute';
      readonly scheme: 'http' | 'https';
      readonly authority: Authority;
      readonly path: string;
    }
  | { readonly type: 'target'; readonly form: 'authority'; readonly authority: Authority & { readonly port: number } }
  /** OPTIONS about the server as a whole. */
  | { readonly type: 'target'; readonly form: 'asterisk'; readonly path: '*' };

/** Reads the target of a request line. A fragment, a user name and characters that are no URI are refused. */
export function parseRequestTarget(method: string, target: string): RequestTarget | Refusal {
  if (method === 'CONNECT') {
    const authority = parseConnectTarget(target);
    return authority.type === 'refused' ? authority : { type: 'target', form: 'authority', authority };
  }
  if (target === '*') {
    if (method !== 'OPTIONS') return refused('bad-request', 'Only OPTIONS can be about * as a whole.');
    return { type: 'target', form: 'asterisk', path: '*' };
  }
  if (!/^[\x21\x22\x24-\x7e]+$/.test(target))
    return refused('bad-request', 'The request target has characters that are no URI.');
  if (target.startsWith('/')) return { type: 'target', form: 'origin', path: target };
  const [, scheme, authorityText, rest] = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/([^/?]*)(.*)$/.exec(target) ?? [];
  if (scheme === undefined || authorityText === undefined || rest === undefined) {
    return refused('bad-request', 'The request target is neither a path nor an absolute URI.');
  }
  const lower = scheme.toLowerCase();
  if (lower !== 'http' && lower !== 'https')
    return refused('bad-request', 'The request target is of another scheme than http and https.');
  const authority = parseAuthority(authorityText);
  if (authority.type === 'refused') return authority;
  return { type: 'target', form: 'absolute', scheme: lower, authority, path: rest.startsWith('/') ? rest : `/${rest}` };
}
