import { spawn } from 'node:child_process';

import { findProgram } from '@decant/core/node';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { Authority } from '../egress/authority.ts';
import { openFence } from '../fence/open-fence.ts';
import { Prober } from '../fence/prober.ts';
import type { EgressPolicy, Route } from '../net/policy.ts';
import { Internet, route } from '../testing/internet.ts';
import { requireSameNetwork, selfProbe, type ProbeOutcome } from './self-probe.ts';

const available =
  process.platform === 'linux' && process.geteuid?.() === 0 && (await findProgram('perl')) !== undefined;
const { certificatePem } = new Authority();
const nothing: EgressPolicy = { routes: [], deny: [] };
const documentation = {
  id: 'r',
  hosts: ['192.0.2.1'],
  ports: [443, 80],
  protocol: 'http',
  matches: [],
  privateRanges: [],
} as const;

describe.skipIf(!available)('[backend:bubblewrap] the self-probe', () => {
  const open: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const close of open.splice(0)) await close();
  });
  async function fenced(policy: EgressPolicy) {
    const fence = await openFence({ network: 'new', policy, onAudit: () => undefined });
    open.push(() => fence.close());
    return { networkNamespace: fence.networkNamespace, certificatePem: fence.certificatePem };
  }

  test('a fence holds', async () => {
    const outcomes = await selfProbe({ ...(await fenced(nothing)), policy: nothing });
    expect(outcomes.map(({ outcome }) => outcome)).not.toContain('slow');
    expect(outcomes.find(({ name }) => name === 'host-port-127.0.0.1')).toMatchObject({ detail: 'ECONNREFUSED' });
    for (const name of ['connect-192.0.2.1', 'proxied-host-port', 'proxied-name', 'metadata'])
      expect(outcomes.find((outcome) => outcome.name === name)?.detail, name).toMatch(/^HTTP\/1\.1 403/);
  });

  test('a probe that is held up before it asks is reset by the fence, and tried again; but not for ever', async () => {
    const fence = await fenced(nothing);
    let attempts = 0;
    /** Held up the given times. */
    const heldUp = (times: number): Prober => {
      const attempt: Prober['attempt'] = async (options) => {
        attempts++;
        await using prober = new Prober();
        const answers = await prober.attempt(options);
        return attempts > times
          ? answers
          : answers.replace(/^(metadata|address-\S+) .*$/gm, '$1 failed 301 ECONNRESET');
      };
      return { isReady: true, attempt } as unknown as Prober;
    };
    const outcomes = await selfProbe({ ...fence, policy: nothing, prober: heldUp(2) });
    expect(outcomes.find(({ name }) => name === 'metadata')?.detail).toMatch(/^HTTP\/1\.1 403/);
    expect(attempts).toBe(3);
    attempts = 0;
    await expect(selfProbe({ ...fence, policy: nothing, prober: heldUp(99) })).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
      message: expect.stringContaining('ECONNRESET'),
    });
    expect(attempts).toBe(3);
  });

  test('what was proven counts for the namespace it was proven in', async () => {
    const fences = await Promise.all([fenced(nothing), fenced(nothing)]);
    const [one = '', other = ''] = fences.map(({ networkNamespace }) => networkNamespace);
    await requireSameNetwork(one, one);
    for (const path of [other, '/proc/self/ns/net', '/proc/self/fd/none']) {
      await expect(requireSameNetwork(path, one)).rejects.toMatchObject({ code: 'BOTTLE_PROBE_FAILED' });
    }
    const gone = '/proc/self/fd/none';
    await expect(requireSameNetwork(gone, gone)).rejects.toMatchObject({ code: 'BOTTLE_PROBE_FAILED' });
  });

  test("the host's own network is no fence", async () => {
    await expect(
      selfProbe({ networkNamespace: '/proc/self/ns/net', certificatePem, policy: nothing }),
    ).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
      message: expect.stringContaining('host-port-127.0.0.1: connected'),
    });
  });

  test('a namespace in which nobody answers is no fence', async () => {
    const child = spawn('unshare', ['--net', 'sh', '-c', 'ip link set lo up; echo up; exec sleep 60'], {
      stdio: 'pipe',
    });
    open.push(async () => void child.kill('SIGKILL'));
    await new Promise((resolve) => child.stdout.once('data', resolve));
    await expect(
      selfProbe({ networkNamespace: `/proc/${child.pid}/ns/net`, certificatePem, policy: nothing }),
    ).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
    });
  });

  test('a fence that lets through what the plan denies does not hold', async () => {
    const fence = await fenced({ routes: [documentation], deny: [] });
    await expect(selfProbe({ ...fence, policy: nothing })).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
      message: expect.stringContaining('192.0.2.1'),
    });
  });

  test('a fence that denies what the plan allows does not work', async () => {
    const fence = await fenced(nothing);
    const policy = { routes: [{ ...documentation, hosts: ['203.0.113.99'] }], deny: [] };
    await expect(selfProbe({ ...fence, policy })).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
      message: expect.stringContaining('No allowed host could be reached (203.0.113.99:443'),
    });
  });

  test('a fence that is gone cannot be proven', async () => {
    const fence = await fenced(nothing);
    await open.pop()!();
    await expect(selfProbe({ ...fence, policy: nothing })).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
    });
  });
});

describe.skipIf(!available)('[backend:network-namespace] what the self-probe reaches', () => {
  let internet: Internet;
  beforeAll(async () => {
    internet = await Internet.open();
  });
  afterAll(() => internet[Symbol.asyncDispose]());

  async function probed(routes: readonly Route[], own = true): Promise<readonly ProbeOutcome[]> {
    await internet.openFence(routes);
    const { networkNamespace, certificatePem: pem } = internet.fence;
    const options = { networkNamespace, certificatePem: own ? pem : certificatePem };
    const outcomes = await selfProbe({ ...options, policy: { routes, deny: [] } });
    return outcomes.filter(({ name }) => name.startsWith('allowed-'));
  }
  const asks = async () =>
    (await internet.seen()).events.flatMap(({ type, decision, rule, method, path }) =>
      type === 'request' && decision === 'allow' ? [`${rule} ${method} ${path}`] : [],
    );

  test('a host is asked in TLS that the fence opens, and answers', async () => {
    const found = await probed([route('api', 'api.example.com')]);
    expect(found).toMatchObject([
      { name: 'allowed-api.example.com:443', outcome: 'answered', detail: 'HTTP/1.1 200 OK' },
    ]);
    await expect.poll(asks).toEqual(['api HEAD /']);
    // TLS that another authority opens is not this fence's.
    await expect(probed([route('api', 'api.example.com')], false)).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
      message: expect.stringContaining('The fence does not hold (allowed-api.example.com:443: failed'),
    });
  });

  test('only what a route allows is asked, and nothing that could change anything', async () => {
    const matches = [
      { methods: ['POST'], path: { type: 'exact', value: '/write' } },
      { methods: ['GET', 'PUT'], path: { type: 'prefix', value: '/read' }, headers: [{ name: 'X-Kind', value: 'a' }] },
    ] as const;
    await probed([route('api', 'api.example.com', { matches })]);
    await expect.poll(asks).toEqual(['api GET /read']);
    const found = await probed([route('api', 'api.example.com', { matches: [{ methods: ['POST'] }] })]);
    expect(found).toMatchObject([{ outcome: 'answered', detail: 'TLS' }]);
    expect((await internet.stats()).allowedRequests).toBe(0);
  });

  test('TLS that passes unopened, and plain HTTP, are reached too', async () => {
    const pinned = await probed([route('pinned', 'pinned.example.com', { ports: [8443], protocol: 'tls' })]);
    expect(pinned).toMatchObject([{ name: 'allowed-pinned.example.com:8443', outcome: 'answered', detail: 'TLS' }]);
    const plain = await probed([route('api', 'api.example.com', { ports: [80] })]);
    expect(plain).toMatchObject([{ name: 'allowed-api.example.com:80', detail: 'HTTP/1.1 200 OK' }]);
  });

  test('one host that answers is enough, and none is not', async () => {
    const dead = route('dead', 'dead.example.com');
    const untrusted = route('untrusted', 'untrusted.example.com', { ports: [443] });
    const found = await probed([dead, untrusted, route('api', 'api.example.com')]);
    expect(found.filter(({ outcome }) => outcome === 'answered')).toHaveLength(1);
    await expect(probed([dead])).rejects.toThrow(/dead\.example\.com:443: failed .*upstream-unreachable/);
    await expect(probed([untrusted])).rejects.toThrow('upstream-certificate');
    await expect(probed([route('none', 'none.example.com')])).rejects.toThrow('unresolved');
  });
});
