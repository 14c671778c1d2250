import type { EgressPolicy } from '../../../packages/bottle/src/index.ts';

const route = (id: string, hosts: readonly string[]) =>
  ({ id, hosts, ports: [443, 80], protocol: 'http', matches: [], privateRanges: [] }) as const;

/** What the bottle of the escape suite may reach: little, and much that its own rules must refuse all the same. */
export const POLICY: EgressPolicy = {
  routes: [
    route('allowed', ['allowed.test', 'other.test']),
    route('wildcard', ['*.wild.test']),
    // An operator who allows what must stay closed.
    route('traps', [
      ...[
        'loopback.test',
        'mixed.test',
        'mixed6.test',
        'chain.test',
        'private.test',
        'ula.test',
        'mapped.test',
        'nat64.test',
      ],
      ...[
        'meta.test',
        'meta6.test',
        'metadata.google.internal',
        'host.docker.internal',
        '127.0.0.1.nip.test',
        'localhost',
      ],
      ...['169.254.169.254', '127.0.0.1', 'fd00:ec2::254'],
    ]),
    { ...route('pinned', ['pinned.test']), ports: [443], protocol: 'tls' },
    {
      ...route('read-only', ['api.wild.test']),
      matches: [{ methods: ['GET'], path: { type: 'prefix', value: '/public' } }],
    },
  ],
  deny: ['denied.wild.test'],
};
