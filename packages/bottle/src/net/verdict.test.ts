import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { policyProblems } from './compiled-policy.ts';
import type { EgressPolicy, EgressRequest, Pins, Route } from './policy.ts';
import { verdict } from './verdict.ts';

function route(given: Partial<Route> & Pick<Route, 'hosts'>): Route {
  return { id: given.hosts.join(), ports: [443, 80], protocol: 'http', matches: [], privateRanges: [], ...given };
}

function pins(known: Readonly<Record<string, readonly string[]>>): Pins {
  return {
    addressesOf: (name) => known[name],
    namesOf: (address) => Object.keys(known).filter((name) => known[name]?.includes(address)),
  };
}

const PINS = pins({
  'allowed.test': ['203.0.113.5', '2001:db8::5'],
  'a.wild.test': ['203.0.113.6'],
  'api.wild.test': ['203.0.113.7'],
  'mixed.test': ['203.0.113.5', '127.0.0.1'],
  'meta.test': ['169.254.169.254'],
  'meta6.test': ['fd00:ec2::254'],
  'intern.test': ['10.1.2.3'],
  'office.test': ['10.1.2.3'],
  'office2.test': ['10.9.9.9', '203.0.113.5'],
  'empty.test': [],
  'nat64.test': ['64:ff9b::7f00:1'],
  'denied-net.test': ['198.51.100.7'],
  'db.test': ['203.0.113.8'],
  'pinned.test': ['203.0.113.10'],
});
const POLICY: EgressPolicy = {
  routes: [
    route({
      hosts: [
        'allowed.test',
        '203.0.113.9',
        '[2001:db8::9]',
        'mixed.test',
        'meta.test',
        'meta6.test',
        'intern.test',
        'empty.test',
        'nat64.test',
        'denied-net.test',
      ],
    }),
    route({
      hosts: ['metadata.google.internal', '169.254.169.254', 'localhost', '127.0.0.1'],
      privateRanges: ['127.0.0.0/8', '169.254.0.0/16'],
    }),
    route({ hosts: ['*.wild.test', 'new.test'] }),
    route({
      hosts: ['api.wild.test'],
      matches: [
        { methods: ['GET'], path: { type: 'prefix', value: '/v1' } },
        { path: { type: 'exact', value: '/health' } },
        { headers: [{ name: 'X-Key', value: 'k' }], methods: ['POST'] },
      ],
    }),
    route({ hosts: ['office.test', 'office2.test'], privateRanges: ['10.1.0.0/16', '169.254.0.0/16', '127.0.0.0/8'] }),
    route({ hosts: ['db.test'], ports: [5432], protocol: 'tcp' }),
    route({ hosts: ['pinned.test'], ports: [443], protocol: 'tls' }),
    route({ hosts: ['plain.test'], ports: [8080] }),
  ],
  deny: ['denied.wild.test', '*.secret.wild.test', '198.51.100.0/24', '2001:db8:dead::/48'],
};

/** The rule that refuses, or `allow` and `resolve`. */
function ruleOf(request: Partial<EgressRequest>, policy = POLICY, known = PINS): string {
  const result = verdict(policy, { transport: 'connect', port: 443, ...request }, known);
  return result.allow === true ? 'allow' : result.allow === 'resolve' ? 'resolve' : result.rule;
}

const asked = (method: string, target: string, ...headers: (readonly [string, string])[]) => ({
  method,
  target,
  headers,
});

describe('the verdict on hosts', () => {
  it.each([
    [{ authority: 'allowed.test' }, 'allow'],
    [{ authority: 'ALLOWED.test.:443' }, 'allow'],
    [{ authority: 'allowed.test', port: 22 }, 'no-route'],
    [{ authority: 'other.test' }, 'no-route'],
    [{ authority: 'allowed.test.evil.test' }, 'no-route'],
    [{ authority: 'notallowed.test' }, 'no-route'],
    [{ authority: 'wild.test' }, 'no-route'],
    [{ authority: 'a.wild.test' }, 'allow'],
    [{ authority: 'new.test' }, 'resolve'],
    [{ authority: 'denied.wild.test' }, 'deny-list'],
    [{ authority: 'x.secret.wild.test' }, 'deny-list'],
    [{ authority: '203.0.113.9' }, 'allow'],
    [{ authority: '[2001:db8::9]:443' }, 'allow'],
    [{ authority: '203.0.113.5' }, 'no-route'],
    [{ authority: 'localhost' }, 'local-name'],
    [{ authority: 'LOCALHOST.' }, 'local-name'],
    [{ authority: 'x.localhost' }, 'local-name'],
    [{ authority: '127.0.0.1' }, 'special-address'],
    [{ authority: '[::ffff:127.0.0.1]' }, 'special-address'],
    [{ authority: '169.254.169.254' }, 'metadata'],
    [{ authority: 'metadata.google.internal' }, 'metadata'],
    [{ authority: '2852039166' }, 'legacy-address'],
    [{ authority: '0x7f.1' }, 'legacy-address'],
    [{ authority: 'allowed.test\0.evil' }, 'bad-host'],
    [{ authority: 'evil.test\0.allowed.test' }, 'bad-host'],
    [{ authority: 'user@allowed.test' }, 'bad-host'],
    [{ authority: 'allowed.test:0443' }, 'bad-authority'],
    [{ authority: 'allowed.test:444' }, 'name-mismatch'],
    [{}, 'bad-host'],
    [{ authority: '' }, 'bad-host'],
    [{ authority: 'mzxw6ytboi4dqnzygm2tsmjr.wild.test' }, 'name-entropy'],
    [{ authority: '0b1e5f04-7d1c-4a9e-9a57-3d1f0a4b6c88.wild.test' }, 'resolve'],
    [{ authority: 'internationalization.wild.test' }, 'resolve'],
  ] as const)('%j: %s', (request, expected) => expect(ruleOf(request)).toBe(expected));

  it('is that of nobody without routes, and of a broken policy', () => {
    expect(ruleOf({ authority: 'allowed.test' }, { routes: [], deny: [] })).toBe('no-route');
    expect(ruleOf({ authority: 'allowed.test' }, { ...POLICY, deny: ['10.0.0.1/8'] })).toBe('policy-invalid');
  });

  it('shows no name that looks like data', () => {
    const result = verdict(POLICY, { transport: 'dns', port: 53, host: 'mzxw6ytboi4dqnzygm2tsmjr.evil.test' }, PINS);
    expect(result).toEqual({ allow: false, rule: 'no-route', reason: 'No route allows mzxw***.evil.test.' });
  });
});

describe('the verdict on addresses', () => {
  it.each([
    ['mixed.test', 'special-address'],
    ['meta.test', 'metadata'],
    ['meta6.test', 'metadata'],
    ['intern.test', 'private-address'],
    ['office.test', 'allow'],
    ['office2.test', 'private-address'],
    ['empty.test', 'unresolved'],
    ['nat64.test', 'special-address'],
    ['denied-net.test', 'deny-list'],
  ])('of %s is %s', (authority, expected) => {
    expect(ruleOf({ authority })).toBe(expected);
    expect(ruleOf({ transport: 'dns', port: 53, host: authority, questionType: 'A' })).toBe(expected);
  });

  it.each([
    [{ destination: '203.0.113.5', serverName: 'allowed.test' }, 'allow'],
    [{ destination: '2001:db8::5', serverName: 'allowed.test' }, 'allow'],
    [{ destination: '203.0.113.6', serverName: 'allowed.test' }, 'unknown-address'],
    [{ destination: '203.0.113.99', port: 80, host: 'allowed.test', request: asked('GET', '/') }, 'unknown-address'],
    [{ destination: '203.0.113.99', serverName: 'new.test' }, 'resolve'],
    [{ destination: '203.0.113.5' }, 'allow'],
    [{ destination: '203.0.113.99' }, 'unknown-address'],
    [{ destination: '203.0.113.9', serverName: null }, 'allow'],
    [{ destination: '203.0.113.5', serverName: null }, 'no-server-name'],
    [{ destination: '203.0.113.8', port: 5432 }, 'allow'],
    [{ destination: '203.0.113.8', port: 5432, serverName: null }, 'allow'],
    [{ destination: '203.0.113.5', port: 22 }, 'unknown-address'],
    [{ destination: '127.0.0.1', serverName: 'allowed.test' }, 'special-address'],
    [{ destination: '169.254.169.254', port: 80 }, 'metadata'],
    [{ destination: '169.254.169.254', port: 80, host: 'allowed.test' }, 'metadata'],
    [{ destination: '10.1.2.3', serverName: 'office.test' }, 'allow'],
    [{ destination: '10.1.2.3', serverName: 'intern.test' }, 'private-address'],
    [{ destination: 'fe80::1%eth0' }, 'bad-host'],
    [{ destination: '198.51.100.9' }, 'deny-list'],
    [{ destination: '2001:db8:dead::1' }, 'deny-list'],
  ] as const)('a connection to %j: %s', (request, expected) =>
    expect(ruleOf({ transport: 'transparent', ...request })).toBe(expected),
  );
});

describe('the verdict on names that must agree', () => {
  it.each([
    [
      { authority: 'allowed.test:443', serverName: 'allowed.test', host: 'allowed.test', request: asked('GET', '/') },
      'allow',
    ],
    [{ authority: 'allowed.test:443', serverName: 'a.wild.test' }, 'name-mismatch'],
    [{ authority: 'allowed.test:443', serverName: null }, 'no-server-name'],
    [{ serverName: 'allowed.test', host: 'other.test', request: asked('GET', '/') }, 'name-mismatch'],
    [{ serverName: 'allowed.test', host: 'allowed.test:444', request: asked('GET', '/') }, 'name-mismatch'],
    [{ serverName: 'allowed.test:443' }, 'bad-host'],
    [
      { transport: 'proxy', port: 80, authority: 'allowed.test', host: 'other.test', request: asked('GET', '/') },
      'name-mismatch',
    ],
    [{ authority: 'allowed.test', host: 'allowed.test', request: asked('GET', '/') }, 'plain-http'],
    [
      { transport: 'proxy', port: 443, authority: 'allowed.test', host: 'allowed.test', request: asked('GET', '/') },
      'plain-http',
    ],
    [
      { transport: 'proxy', port: 80, authority: 'allowed.test', host: 'allowed.test', request: asked('GET', '/') },
      'allow',
    ],
    [{ authority: 'plain.test:8080', port: 8080, host: 'plain.test:8080', request: asked('GET', '/') }, 'resolve'],
    [{ authority: 'pinned.test', serverName: 'pinned.test' }, 'allow'],
    [{ authority: 'pinned.test', serverName: 'pinned.test', encryptedClientHello: true }, 'encrypted-client-hello'],
    [{ authority: 'allowed.test', serverName: 'allowed.test', encryptedClientHello: true }, 'allow'],
    [{ authority: 'pinned.test', host: 'pinned.test', request: asked('GET', '/') }, 'not-tls'],
    [{ authority: '203.0.113.9', serverName: null, host: '203.0.113.9', request: asked('GET', '/') }, 'allow'],
  ] as const)('%j: %s', (request, expected) => expect(ruleOf(request)).toBe(expected));
});

describe('the verdict on requests', () => {
  const at = (request: EgressRequest['request']) =>
    ruleOf({ serverName: 'api.wild.test', host: 'api.wild.test', request });
  it.each([
    ['GET', '/v1', 'allow'],
    ['GET', '/v1/', 'allow'],
    ['GET', '/v1/x?y=/../z', 'allow'],
    ['GET', '/%76%31/x', 'allow'],
    ['GET', '/v1/a%20b%e2%80%93', 'allow'],
    ['GET', '/health', 'allow'],
    ['DELETE', '/health', 'allow'],
    ['GET', '/health/x', 'no-match'],
    ['GET', '/v1x', 'no-match'],
    ['GET', '/V1', 'no-match'],
    ['GET', '//v1', 'no-match'],
    ['POST', '/v1', 'no-match'],
    ['get', '/v1', 'no-match'],
    ['GET', '/', 'no-match'],
    ['GET', '*', 'no-match'],
    ['GET', '/v1/../admin', 'no-match'],
    ['GET', '/v1/%2e%2e/admin', 'no-match'],
    ['GET', '/v1/%252e%252e/admin', 'no-match'],
    ['GET', '/v1/..%2fadmin', 'no-match'],
    ['GET', '/v1/..%252fadmin', 'no-match'],
    ['GET', '/v1/..;/admin', 'no-match'],
    ['GET', '/v1/..\\admin', 'no-match'],
    ['GET', '/v1/..%5cadmin', 'no-match'],
    ['GET', '/v1%00', 'no-match'],
    ['GET', '/v1/%', 'no-match'],
    ['GET', '/v1/%2525252525252e', 'no-match'],
    ['GET', '/v1/.', 'no-match'],
  ])('%s %s: %s', (method, target, expected) => expect(at(asked(method, target))).toBe(expected));

  it('on headers needs the one value once', () => {
    expect(at(asked('POST', '/x', ['x-key', 'k']))).toBe('allow');
    for (const headers of [
      [],
      [['x-key', 'K']],
      [
        ['x-key', 'k'],
        ['x-key', 'k'],
      ],
      [['x-key', 'k, l']],
    ] as (readonly [string, string])[][]) {
      expect(at(asked('POST', '/x', ...headers))).toBe('no-match');
    }
  });

  it('on methods looks at what overrides them', () => {
    expect(at(asked('GET', '/v1', ['x-http-method-override', 'DELETE']))).toBe('no-match');
    expect(at(asked('GET', '/v1', ['x-http-method-override', 'get']))).toBe('allow');
  });

  it('names the path alone when every match is about paths', () => {
    const policy = {
      routes: [route({ hosts: ['allowed.test'], matches: [{ path: { type: 'prefix', value: '/a' } }] })],
      deny: [],
    } as const;
    expect(ruleOf({ serverName: 'allowed.test', request: asked('GET', '/a/../b') }, policy)).toBe('bad-path');
    expect(ruleOf({ serverName: 'allowed.test', request: asked('GET', '/a/%c3%a4') }, policy)).toBe('allow');
  });

  it('does not widen a route by one for a wildcard', () => {
    expect(ruleOf({ serverName: 'api.wild.test', request: asked('DELETE', '/') })).toBe('no-match');
    expect(ruleOf({ serverName: 'a.wild.test', request: asked('DELETE', '/') })).toBe('allow');
  });

  it.each([
    ['AAAA', 'allow'],
    ['TXT', 'allow'],
    ['HTTPS', 'allow'],
    ['AXFR', 'dns-type'],
  ])('by DNS for %s: %s', (questionType, expected) => {
    expect(ruleOf({ transport: 'dns', port: 53, host: 'allowed.test', questionType })).toBe(expected);
    // Only addresses are asked for elsewhere.
    expect(ruleOf({ transport: 'dns', port: 53, host: 'new.test', questionType })).toBe(
      questionType === 'AAAA' ? 'resolve' : expected,
    );
    expect(ruleOf({ transport: 'dns', port: 53, host: '_x.allowed.test', questionType })).toBe('bad-host');
    expect(ruleOf({ transport: 'dns', port: 53, host: 'evil.test', questionType })).toBe('no-route');
  });
});

describe('the problems of a policy', () => {
  it.each<[Partial<Route>, string]>([
    [{ hosts: [] }, 'names no host'],
    [{ ports: [] }, 'names no port'],
    [{ ports: [0] }, 'port 0'],
    [{ ports: [53] }, 'port 53'],
    [{ ports: [1.5] }, 'port 1.5'],
    [{ hosts: ['*'] }, 'host "*"'],
    [{ hosts: ['127.1'] }, 'host "127.1"'],
    [{ privateRanges: ['10.0.0.1/8'] }, '10.0.0.1/8'],
    [{ protocol: 'tcp', matches: [{ methods: ['GET'] }] }, 'cannot judge'],
    [{ matches: [{ methods: ['get'] }] }, 'upper case'],
    [{ matches: [{ path: { type: 'prefix', value: 'x' } }] }, 'plain path'],
    [{ matches: [{ path: { type: 'exact', value: '/a/../b' } }] }, 'plain path'],
    [{ matches: [{ headers: [{ name: 'a b', value: '' }] }] }, 'proper name'],
  ])('%j are told', (part, expected) => {
    const policy = { routes: [{ ...route({ hosts: ['a.test'] }), ...part }], deny: [] };
    expect(policyProblems(policy).join()).toContain(expected);
    expect(ruleOf({ authority: 'a.test' }, policy)).toBe('policy-invalid');
  });

  it('are also two of one id, two protocols, and denials that cannot be read', () => {
    const one = route({ hosts: ['a.test'] });
    expect(policyProblems({ routes: [one, one], deny: [] })).toEqual(['Two routes have the id "a.test".']);
    expect(policyProblems({ routes: [one, { ...one, id: 'b', protocol: 'tls' }], deny: [] })[0]).toContain(
      'two protocols',
    );
    expect(policyProblems({ routes: [], deny: ['*'] })[0]).toContain('"*"');
    expect(policyProblems(POLICY)).toEqual([]);
  });
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

describe('the verdict as a function', { timeout: 30_000 }, () => {
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
