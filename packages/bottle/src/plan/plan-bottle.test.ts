import { describe, expect, it } from 'vitest';

import type { Backend } from '../backends/backend.ts';
import { routeOf, specOf } from '../manifest/spec.ts';
import { formatPlan } from './format-plan.ts';
import { planBottle, withArtifact, withEndpoints, withSlug } from './plan-bottle.ts';

const none = () => Promise.reject(new Error('a plan starts nothing'));
const backend = (report: Partial<Awaited<ReturnType<Backend['probe']>>> = {}): Backend => ({
  name: 'native',
  probe: async () => ({ usable: true, reasons: [], weaknesses: [], ...report }),
  prepare: none,
  reap: none,
});

const full = specOf({
  name: 'Code Reviewer',
  image: 'team/app:v1',
  egress: {
    routes: [
      {
        id: 'api',
        hosts: ['api.example.com'],
        ports: [443],
        matches: [
          {
            path: { type: 'prefix', value: '/v1' },
            methods: ['GET', 'POST'],
            headers: [{ name: 'X-Team', value: 'a b' }],
          },
          { path: { type: 'exact', value: '/health' } },
        ],
      },
      { hosts: ['*.pinned.example'], protocol: 'tls', privateRanges: ['10.1.0.0/16'] },
    ],
    deny: ['admin.example.com', '203.0.113.0/24'],
    resolvers: ['192.0.2.53', '2001:db8::1'],
    upstreamCaFile: '/etc/decant/ca.pem',
  },
  mounts: [
    { type: 'read-write', source: '/srv//work/', target: '/work/.' },
    { type: 'tmpfs', target: '/scratch', size: 1_048_576 },
  ],
  limits: { cpus: 1.5, memory: 536_870_912, processes: 100, disk: 1_073_741_824, wallTime: 1_800_000 },
  agent: {
    command: ['agent', '--fast', 'two words'],
    prompt: 'Look at\nthe \u202ecode',
    promptMode: 'stdin',
    env: { TOKEN: 'canary-1234', MODE: { from: 'HOST_MODE' } },
    user: 'node',
    workingDir: '/work',
  },
});

describe('planBottle', () => {
  it('is frozen, survives JSON, and has the names of variables but no value', async () => {
    const plan = await planBottle(full.spec, { backend: backend() });
    // What it was made of stays the caller's.
    expect(Object.isFrozen(full.spec.limits)).toBe(false);
    expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
    expect(JSON.stringify(plan)).not.toContain('canary');
    expect(plan.agent.environmentNames).toEqual(['MODE', 'TOKEN']);
    expect(() => (plan.egress.policy.routes[0]!.hosts as string[]).push('evil.example')).toThrow(TypeError);
    expect(() => Object.assign(plan.limits, { cpus: 99 })).toThrow(TypeError);
  });

  it('each stage gives a new plan and leaves the one before', async () => {
    const plan = await planBottle(full.spec, { backend: backend() });
    const named = withSlug(plan, 'code-reviewer-2');
    const reachable = withEndpoints(named, { networkNamespace: '/proc/7/fd/3', proxy: 'http://127.0.0.1:9099' });
    const whole = withArtifact(reachable, { id: 'cas-v1:00', filesystem: 'erofs' });
    expect(plan).not.toHaveProperty('slug');
    expect(named).not.toHaveProperty('endpoints');
    expect(whole).toMatchObject({ slug: 'code-reviewer-2', endpoints: { networkNamespace: '/proc/7/fd/3' } });
    expect(Object.isFrozen(whole.endpoints)).toBe(true);
  });

  it('refuses another backend than the one asked for', async () => {
    const { spec } = specOf({ name: 'a', image: 'b', backend: 'docker' });
    await expect(planBottle(spec, { backend: backend() })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });
});

describe('formatPlan', () => {
  it('says everything that is allowed, mounted and limited, and what is weaker', async () => {
    const report = { usable: false, reasons: ['bwrap is not installed.'], weaknesses: ['The kernel is shared.'] };
    expect(formatPlan(await planBottle(full.spec, { backend: backend(report) }))).toMatchInlineSnapshot(`
      "bottle      code-reviewer
      image       team/app:v1
      backend     native
      cannot run  bwrap is not installed.
      weaker      The kernel is shared.
      may reach   api.example.com on 443, HTTP (route api)
                    only GET, POST /v1 and below with X-Team: "a b"
                    only any method /health
                  *.pinned.example on 443, 80, TLS that is not opened: what is sent is not seen (route route-2)
                    also at private addresses of 10.1.0.0/16
      never       admin.example.com
                  203.0.113.0/24
      names by    192.0.2.53:53, [2001:db8::1]:53
      trusts also /etc/decant/ca.pem
      mounts      /work from /srv/work, written to: changes the host's files
                  /scratch: 1.0 MiB of memory
      limits      1.5 processors, 512.0 MiB memory, 100 processes, 1.0 GiB written, ends after 30 min
      agent       agent --fast "two words"
      prompt      "Look at\\nthe \\u202ecode" on standard input
      user        node
      works in    /work
      variables   MODE
                  TOKEN"
    `);
  });

  it('says that nothing is allowed', async () => {
    const { spec } = specOf({ name: 'a', image: 'b' });
    expect(formatPlan(await planBottle(spec, { backend: backend() }))).toMatchInlineSnapshot(`
      "bottle      a
      image       b
      backend     native
      may reach   nothing
      mounts      none
      limits      2 processors, 2.0 GiB memory, 1024 processes, 2.0 GiB written, ends after 8 h
      agent       the image's command
      user        the image's
      variables   none of its own"
    `);
  });

  it('never prints what a terminal would act on or a reader mistake', async () => {
    const { spec } = specOf({
      name: 'x',
      image: 'i\u001b[31m',
      agent: {
        command: ['a\u001b]0;t\u0007', 'раураl', '\u202e'],
        prompt: '\u001b[2J',
        user: 'r\noot',
        workingDir: '/\u2028',
      },
    });
    expect(formatPlan(await planBottle(spec, { backend: backend() }))).toMatch(/^[ -~\n]*$/);
  });
});

describe('routeOf', () => {
  it.each([
    ['api.example.com', { hosts: ['api.example.com'] }],
    ['*.example.com:8443', { hosts: ['*.example.com'], ports: [8443] }],
    ['[2001:db8::1]:443', { hosts: ['[2001:db8::1]'], ports: [443] }],
  ])('reads %s', (text, route) => {
    expect(routeOf(text)).toEqual(route);
  });

  it.each(['', ':443', 'a:0', 'a:65536', 'a:b', 'a:1:2', 'https://a', '[::1', 'a]'])('refuses %j', (text) => {
    expect(() => routeOf(text)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
  });

  it('what it reads is still judged as a host', () => {
    expect(() => specOf({ name: 'a', image: 'b', egress: { routes: [routeOf('-x')] } })).toThrow('route-1');
  });
});

describe('specOf', () => {
  it('gives every limit a finite default and no route', () => {
    const { spec } = specOf({ name: 'a', image: 'b' });
    expect(spec.egress.policy).toEqual({ routes: [], deny: [] });
    for (const limit of Object.values(spec.limits)) expect(limit).toBeGreaterThan(0);
    for (const limit of Object.values(spec.limits)) expect(Number.isFinite(limit)).toBe(true);
  });

  it.each([
    [{ image: 'b' }, 'no name'],
    [{ name: 'a' }, 'no image'],
    [{ name: '---', image: 'b' }, 'no letter'],
    [{ name: 'a', image: 'b', agent: { promptMode: 'stdin' as const } }, 'no prompt'],
    [
      { name: 'a', image: 'b', mounts: [{ type: 'read-only' as const, source: '/a', target: '/proc/sys' }] },
      '/proc/sys',
    ],
    [{ name: 'a', image: 'b', mounts: [{ type: 'read-only' as const, source: '/a', target: '//' }] }, 'on /'],
    [
      {
        name: 'a',
        image: 'b',
        mounts: ['/x', '/x/'].map((target) => ({ type: 'tmpfs' as const, target, size: 65_536 })),
      },
      'Two mounts',
    ],
    [{ name: 'a', image: 'b', egress: { routes: [{ hosts: ['a.example'], ports: [53] }] } }, '53'],
    [{ name: 'a', image: 'b', egress: { routes: [{ hosts: ['a.example'], ports: [9099] }] } }, '9099'],
    [{ name: 'a', image: 'b', egress: { routes: ['x', 'x'].map((id) => ({ id, hosts: ['a.example'] })) } }, '"x"'],
  ])('refuses %j', (manifest, why) => {
    expect(() => specOf(manifest)).toThrow(why);
  });
});
