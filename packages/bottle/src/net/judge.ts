import { canonicalAddress } from './address.ts';
import type { EgressPolicy, EgressRequest, Route, Verdict } from './policy.ts';
import type { Resolver } from './resolver.ts';
import { verdict } from './verdict.ts';

/** The end of the matter: refused, or the addresses that may be dialled for this request, in the order to try them. */
export type Judgement =
  | {
      readonly allow: true;
      readonly route: Route;
      readonly host: string;
      readonly port: number;
      /** Canonical; each was judged, and nothing else may be dialled. None only for DNS questions that are not for addresses. */
      readonly addresses: readonly string[];
    }
  | Extract<Verdict, { readonly allow: false }>;

/**
 * Asks for a verdict, looks a name up when the verdict depends on it, and asks again. For a name the addresses are its pins at the moment of
 * the verdict, so the ones that were judged are the ones that are dialled.
 */
export async function judge(
  policy: EgressPolicy,
  request: EgressRequest,
  resolver: Resolver,
  signal?: AbortSignal,
): Promise<Judgement> {
  const first = verdict(policy, request, resolver);
  const last = first.allow === 'resolve' ? await afterLookup(first, policy, request, resolver, signal) : first;
  if (last.allow === false) return last;
  if (last.allow === 'resolve') return { allow: false, rule: 'unresolved', reason: `${last.name} was not resolved.` };
  // Between the verdict and here nothing waits: these are the pins it saw.
  const pinned = resolver.addressesOf(last.host);
  const own = canonicalAddress(last.host);
  return { ...last, addresses: pinned ?? (own === undefined ? [] : [own]) };
}

async function afterLookup(
  { name, wildcard }: Extract<Verdict, { readonly allow: 'resolve' }>,
  policy: EgressPolicy,
  request: EgressRequest,
  resolver: Resolver,
  signal: AbortSignal | undefined,
): Promise<Verdict> {
  const looked = await resolver.resolve(name, { wildcard, signal });
  if (looked.type === 'refused') return { allow: false, rule: looked.rule, reason: looked.reason };
  return verdict(policy, request, resolver);
}
