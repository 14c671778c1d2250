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
    [{ destination: '203.0.113.5', port: 80, host: '203.0.113.9', request: asked('GET', '/') }, 'unknown-address'],
    [{ destination: '203.0.113.9', port: 80, host: '203.0.113.9', request: asked('GET', '/') }, 'allow'],
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
    ['GET', '/v1/%00x', 'no-match'],
    ['GET', '/v1/x%0d%0ay', 'no-match'],
    ['GET', '/v1/x%7f', 'no-match'],
    ['GET', '/v1/x%2fy', 'no-match'],
    ['GET', '/v1/x%252fy', 'no-match'],
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
