import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { EgressPolicy, EgressRequest, Pins, Route } from './policy.ts';
import { verdict } from './verdict.ts';

function pins(known: Readonly<Record<string, readonly string[]>>): Pins {
  return {
    addressesOf: (name) => known[name],
    namesOf: (address) => Object.keys(known).filter((name) => known[name]?.includes(address)),
  };
}

const route = { id: 'r', ports: [443, 80], protocol: 'http', matches: [], privateRanges: ['10.0.0.0/8'] } as const;
const POLICY: EgressPolicy = {
  routes: [
    { ...route, id: 'names', hosts: ['a.test', '*.b.test', '203.0.113.9', '2001:db8::9'] },
    {
      ...route,
      id: 'paths',
      hosts: ['c.test'],
      matches: [{ methods: ['GET'], path: { type: 'prefix', value: '/v1' } }],
    },
    { ...route, id: 'tcp', hosts: ['d.test'], ports: [5432], protocol: 'tcp' },
  ],
  deny: ['x.b.test', '198.51.100.0/24'],
};
const PINS = pins({ 'a.test': ['203.0.113.5'], 'd.test': ['203.0.113.8'] });

const asked = (method: string, target: string, ...headers: (readonly [string, string])[]) => ({
  method,
  target,
  headers,
});

/** The rules once more, for policies of plain names and requests of one name, in the plainest words. */
function reference(policy: EgressPolicy, request: EgressRequest, known: Pins): 'allow' | 'resolve' | 'deny' {
  const names = [request.authority, request.serverName, request.host]
    .filter((name) => typeof name === 'string')
    .map((name) => name.toLowerCase().replace(/\.$/, ''));
  const name = names[0];
  if (name === undefined || names.some((other) => other !== name)) return 'deny';
  const covers = (pattern: string) =>
    pattern.startsWith('*.') ? name.endsWith(pattern.slice(1)) && name !== pattern.slice(2) : pattern === name;
  if (policy.deny.some(covers)) return 'deny';
  const rank = (item: Route) =>
    Math.max(-1, ...item.hosts.filter(covers).map((pattern) => (pattern === name ? 1000 : pattern.length)));
  const open = policy.routes.filter((item) => item.ports.includes(request.port) && rank(item) >= 0);
  const best = open.filter((item) => rank(item) === Math.max(...open.map(rank)));
  const inner = request.request;
  const fits = best.filter(
    (item) =>
      inner === undefined ||
      item.matches.length === 0 ||
      item.matches.some((match) => match.methods?.includes(inner.method)),
  );
  if (fits.length === 0) return 'deny';
  if (inner !== undefined && request.serverName === undefined && request.port === 443) return 'deny';
  const addresses = known.addressesOf(name);
  if (addresses === undefined) return 'resolve';
  const fine = (address: string) =>
    address.startsWith('203.0.113.') || (address.startsWith('10.') && fits[0]!.privateRanges.includes('10.0.0.0/8'));
  if (addresses.length === 0 || !addresses.every(fine)) return 'deny';
  return request.destination === undefined ||
    (fine(request.destination) && known.namesOf(request.destination).includes(name))
    ? 'allow'
    : 'deny';
}

describe('the verdict as a function', () => {
  const name = fc.constantFrom('a.test', 'b.a.test', 'c.b.a.test', 'xa.test');
  const pattern = fc.oneof(
    name,
    name.map((text) => `*.${text}`),
  );
  const address = fc.constantFrom(
    '203.0.113.1',
    '203.0.113.1',
    '203.0.113.1',
    '203.0.113.2',
    '10.0.0.1',
    '127.0.0.1',
    '169.254.169.254',
  );
  const some = <T>(item: fc.Arbitrary<T>, most: number) => fc.array(item, { maxLength: most });
  const anyRoute = fc.record({
    hosts: fc.array(pattern, { minLength: 1, maxLength: 3 }),
    ports: fc.array(fc.constantFrom(80, 443, 8080), { minLength: 1, maxLength: 3 }),
    matches: some(fc.record({ methods: fc.constantFrom(['GET'], ['POST'], ['GET', 'POST']) }), 2),
    privateRanges: fc.constantFrom<string[]>([], ['10.0.0.0/8']),
  });
  const policies = fc
    .record({ routes: some(anyRoute, 4), deny: some(pattern, 1) })
    .map(({ routes, deny }): EgressPolicy => ({
      deny,
      routes: routes.map((item, i) => ({ id: `${i}`, protocol: 'http', ...item })),
    }));
  const spelling = (text: string) => fc.constantFrom(text, text, text.toUpperCase(), `${text}.`);
  /** Mostly one name everywhere, as honest clients have it. */
  const requests = fc.tuple(name, name, fc.nat(9)).chain(([one, two, mixed]) =>
    fc.record(
      {
        transport: fc.constantFrom('connect', 'proxy', 'transparent'),
        port: fc.constantFrom(80, 443, 443, 8080),
        authority: spelling(one),
        serverName: spelling(mixed === 0 ? two : one),
        host: spelling(mixed === 1 ? two : one),
        request: fc.constantFrom('GET', 'POST', 'PUT').map((method) => asked(method, '/')),
        destination: fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, address),
      },
      { requiredKeys: ['transport', 'port'] },
    ),
  );
  const pinned = fc.dictionary(name, some(address, 2), { minKeys: 2 }).map(pins);

  it('agrees with the rules in plain words', () => {
    const seen = new Map<string, number>();
    fc.assert(
      fc.property(policies, requests, pinned, (policy, request: EgressRequest, known) => {
        // Of a connection that names nothing, the names of its address decide: that is tested above.
        if (request.authority === undefined && request.serverName === undefined && request.host === undefined) return;
        const result = verdict(policy, request, known);
        const expected = reference(policy, request, known);
        const early = result.allow === false && expected === 'resolve' && request.destination !== undefined;
        seen.set(expected, (seen.get(expected) ?? 0) + 1);
        // A forbidden destination is refused before anything is looked up.
        if (early) expect(result.rule).toMatch(/^(special-address|metadata)$/);
        else expect(result.allow === true ? 'allow' : result.allow === 'resolve' ? 'resolve' : 'deny').toBe(expected);
        expect(verdict(structuredClone(policy), request, known)).toEqual(result);
      }),
      { numRuns: 1500 },
    );
    for (const kind of ['allow', 'resolve', 'deny']) expect(seen.get(kind) ?? 0, kind).toBeGreaterThan(0);
  });

  it('never throws, whatever text it is given', () => {
    const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 40 }), fc.ipV6(), fc.ipV4Extended(), fc.domain());
    const wild = fc.record(
      {
        transport: fc.constantFrom('connect', 'proxy', 'transparent', 'dns'),
        port: fc.nat(70_000),
        authority: text,
        serverName: fc.option(text),
        host: text,
        destination: text,
        questionType: text,
        request: fc.record({ method: text, target: text, headers: some(fc.tuple(text, text), 3) }),
      },
      { requiredKeys: ['transport', 'port'] },
    );
    fc.assert(
      fc.property(wild, (request: EgressRequest) => {
        const result = verdict(POLICY, request, PINS);
        if (result.allow === true) expect(POLICY.routes).toContain(result.route);
      }),
      { numRuns: 500 },
    );
  });

  it('takes an allow away with every name that is added to the deny list', () => {
    fc.assert(
      fc.property(policies, requests, pinned, pattern, (policy, request: EgressRequest, known, more) => {
        const before = verdict(policy, request, known);
        const after = verdict({ ...policy, deny: [...policy.deny, more] }, request, known);
        if (before.allow === false) expect(after.allow).toBe(false);
      }),
    );
  });
});
