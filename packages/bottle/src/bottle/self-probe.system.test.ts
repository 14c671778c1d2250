import { spawn } from 'node:child_process';

import { findProgram } from '@decant/core/node';
import { afterEach, describe, expect, test } from 'vitest';

import { openFence } from '../fence/open-fence.ts';
import type { EgressPolicy } from '../net/policy.ts';
import { requireSameNetwork, selfProbe } from './self-probe.ts';

const available =
  process.platform === 'linux' && process.geteuid?.() === 0 && (await findProgram('perl')) !== undefined;
const nothing: EgressPolicy = { routes: [], deny: [] };
const route = {
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
  async function fenced(policy: EgressPolicy): Promise<string> {
    const fence = await openFence({ network: 'new', policy, onAudit: () => undefined });
    open.push(() => fence.close());
    return fence.networkNamespace;
  }

  test('a fence holds', async () => {
    const outcomes = await selfProbe({ networkNamespace: await fenced(nothing), policy: nothing });
    expect(outcomes.map(({ outcome }) => outcome)).not.toContain('slow');
    expect(outcomes.find(({ name }) => name === 'host-port-127.0.0.1')).toMatchObject({ detail: 'ECONNREFUSED' });
    expect(outcomes.find(({ name }) => name.startsWith('connect-'))?.detail).toMatch(/^HTTP\/1\.1 403/);
  });

  test('what was proven counts for the namespace it was proven in', async () => {
    const [one, other] = await Promise.all([fenced(nothing), fenced(nothing)]);
    await requireSameNetwork(one, one);
    for (const path of [other, '/proc/self/ns/net', '/proc/self/fd/none']) {
      await expect(requireSameNetwork(path, one)).rejects.toMatchObject({ code: 'BOTTLE_PROBE_FAILED' });
    }
    const gone = '/proc/self/fd/none';
    await expect(requireSameNetwork(gone, gone)).rejects.toMatchObject({ code: 'BOTTLE_PROBE_FAILED' });
  });

  test("the host's own network is no fence", async () => {
    await expect(selfProbe({ networkNamespace: '/proc/self/ns/net', policy: nothing })).rejects.toMatchObject({
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
    await expect(selfProbe({ networkNamespace: `/proc/${child.pid}/ns/net`, policy: nothing })).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
    });
  });

  test('a fence that lets through what the plan denies does not hold', async () => {
    const networkNamespace = await fenced({ routes: [route], deny: [] });
    await expect(selfProbe({ networkNamespace, policy: nothing })).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
      message: expect.stringContaining('192.0.2.1'),
    });
  });

  test('a fence that denies what the plan allows does not work', async () => {
    const networkNamespace = await fenced(nothing);
    const policy = { routes: [{ ...route, hosts: ['203.0.113.99'] }], deny: [] };
    await expect(selfProbe({ networkNamespace, policy })).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
      message: expect.stringContaining('No allowed host could be reached (203.0.113.99:443'),
    });
  });

  test('a fence that is gone cannot be proven', async () => {
    const networkNamespace = await fenced(nothing);
    await open.pop()!();
    await expect(selfProbe({ networkNamespace, policy: nothing })).rejects.toMatchObject({
      code: 'BOTTLE_PROBE_FAILED',
    });
  });
});
