import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { createServer, connect, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';

import { DecantError } from '@decant/core';

import { DNS_PORT, portsOf, PROXY_PORT } from '../fence/ports.ts';
import { Prober } from '../fence/prober.ts';
import { parseHostPattern } from '../net/host-pattern.ts';
import type { EgressPolicy, Pins } from '../net/policy.ts';
import { verdict } from '../net/verdict.ts';

export interface SelfProbeOptions {
  /** Path of the namespace that the machine's processes are in. */
  readonly networkNamespace: string;
  readonly policy: EgressPolicy;
  /** A process for it that was started ahead; the caller disposes of it. */
  readonly prober?: Prober | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What became of one attempt. */
export interface ProbeOutcome {
  readonly name: string;
  readonly outcome: 'connected' | 'answered' | 'failed' | 'slow' | 'missing';
  readonly elapsedMs: number;
  /** The errno's name, or the first line or bytes of the answer. */
  readonly detail: string;
}

interface Probe {
  readonly name: string;
  readonly kind: 'tcp' | 'ask' | 'dns';
  readonly address: string;
  readonly port: number;
  readonly limitMs: number;
  readonly bytes?: Uint8Array | undefined;
  /** `must`: it holds by itself. `any`: one of those must hold. */
  readonly need: 'must' | 'any';
  readonly holds: (outcome: ProbeOutcome) => boolean;
}

/** A refusal that takes longer is no refusal. */
const DENIED_WITHIN_MS = 3000;
/** An allowed name is looked up, which may take an upstream resolver's time. */
const ALLOWED_WITHIN_MS = 15_000;
const MOST_ALLOWED = 4;
const MOST_HOST_ADDRESSES = 4;
/** Addresses for documentation (RFC 5737, RFC 3849): nobody has them, and only a test's policy could allow them. */
const ADDRESSES = ['192.0.2.1', '198.51.100.1', '203.0.113.1'];
const ADDRESSES_6 = ['2001:db8::1', '2001:db8:ffff::1'];
const NO_PINS: Pins = { addressesOf: () => undefined, namesOf: () => [] };

/**
 * Proves from inside that the fence holds, before anything of the image runs: an address that is denied, a name that is
 * denied and a port of the host must be refused at once, and one allowed host, where the policy names one, must be let
 * through. The attempts come from a process of the host's perl in the machine's network namespace, as an id that owns
 * nothing: nothing of the image is needed or trusted.
 * @throws BOTTLE_PROBE_FAILED
 */
export async function selfProbe(options: SelfProbeOptions): Promise<readonly ProbeOutcome[]> {
  const { policy } = options;
  await using canary = await openCanary(portsOf(policy));
  const probes = [...deniedProbes(policy, canary.port), ...allowedProbes(policy)];
  const outcomes = await attempt(options, probes);
  const holds = (probe: Probe, index: number) => probe.holds(outcomes[index]!);
  const wrong = probes.find((probe, index) => probe.need === 'must' && !holds(probe, index));
  if (wrong !== undefined) throw failed(outcomes[probes.indexOf(wrong)]!, outcomes);
  const alternatives = probes.filter(({ need }) => need === 'any');
  if (alternatives.length > 0 && !alternatives.some((probe) => probe.holds(outcomes[probes.indexOf(probe)]!))) {
    throw failed(outcomes[probes.indexOf(alternatives[0]!)]!, outcomes);
  }
  return outcomes;
}

/**
 * What was proven in the fence's namespace holds for the machine only when it is in that one.
 * @throws BOTTLE_PROBE_FAILED
 */
export async function requireSameNetwork(machine: string, fence: string): Promise<void> {
  const identity = (path: string) =>
    stat(path).then(
      ({ dev, ino }) => `${dev}:${ino}`,
      () => undefined,
    );
  const [ours, theirs] = await Promise.all([identity(fence), identity(machine)]);
  if (ours !== undefined && ours === theirs) return;
  throw new DecantError('BOTTLE_PROBE_FAILED', "The machine is not in its fence's network namespace.", {
    hint: 'The bottle was taken down. This is a fault of decant or of this machine; run: decant doctor',
  });
}

function deniedProbes(policy: EgressPolicy, canaryPort: number): Probe[] {
  const limitMs = DENIED_WITHIN_MS;
  const probes: Probe[] = [];
  for (const address of ['127.0.0.1', '::1', ...hostAddresses()]) {
    const holds = (outcome: ProbeOutcome) => isRefused(outcome, address.includes(':'));
    probes.push({ name: `host-port-${address}`, kind: 'tcp', address, port: canaryPort, limitMs, need: 'must', holds });
  }
  for (const address of [deniedAddress(policy, ADDRESSES), deniedAddress(policy, ADDRESSES_6)]) {
    if (address === undefined) continue;
    const isSix = address.includes(':');
    const host = isSix ? `[${address}]` : address;
    const refused = (outcome: ProbeOutcome) => isDenied(outcome) || isRefused(outcome, isSix);
    const base = { limitMs, need: 'must', kind: 'ask' } as const;
    probes.push(
      { ...base, name: `address-${address}`, address, port: 80, bytes: getRequest(host), holds: refused },
      {
        ...base,
        ...{ name: `connect-${address}`, address: '127.0.0.1', port: PROXY_PORT },
        bytes: connectRequest(`${host}:443`),
        holds: isDenied,
      },
      { ...base, kind: 'tcp', name: `port-${address}`, address, port: canaryPort, holds: (o) => isRefused(o, isSix) },
    );
  }
  const name = `${randomBytes(6).toString('hex')}.invalid`;
  probes.push({
    ...{ name: 'name', kind: 'dns', address: '127.0.0.1', port: DNS_PORT, limitMs, need: 'must' },
    bytes: question(name),
    // NXDOMAIN or REFUSED (RFC 1035, 4.1.1).
    holds: ({ outcome, detail }) =>
      outcome === 'answered' && [3, 5].includes(Number.parseInt(detail.slice(6, 8), 16) & 15),
  });
  return probes;
}

/** Hosts that a route names by their whole name. One that answers is enough: another may be down. */
function allowedProbes(policy: EgressPolicy): Probe[] {
  const targets = new Set<string>();
  for (const { hosts, ports, protocol } of policy.routes) {
    if (protocol === 'tcp') continue;
    for (const text of hosts) {
      const pattern = parseHostPattern(text);
      const port = ports[0];
      if (pattern?.type !== 'host' || port === undefined) continue;
      const { host } = pattern;
      const shown = host.text.includes(':') ? `[${host.text}]` : host.text;
      const request = { transport: 'connect', port, authority: host.text } as const;
      if (verdict(policy, request, NO_PINS).allow !== false) targets.add(`${shown}:${port}`);
    }
  }
  return [...targets].slice(0, MOST_ALLOWED).map((target) => ({
    name: `allowed-${target}`,
    kind: 'ask',
    address: '127.0.0.1',
    port: PROXY_PORT,
    limitMs: ALLOWED_WITHIN_MS,
    bytes: connectRequest(target),
    need: 'any',
    holds: ({ outcome, detail }) => outcome === 'answered' && / 200(?: |$)/.test(detail),
  }));
}

function deniedAddress(policy: EgressPolicy, candidates: readonly string[]): string | undefined {
  return candidates.find((address) =>
    [80, 443].every((port) => {
      const request = { transport: 'transparent', port, destination: address } as const;
      const asked = { transport: 'connect', port, authority: address } as const;
      return verdict(policy, request, NO_PINS).allow === false && verdict(policy, asked, NO_PINS).allow === false;
    }),
  );
}

function isRefused({ outcome, detail }: ProbeOutcome, isSix: boolean): boolean {
  if (outcome !== 'failed') return false;
  // A machine without IPv6 has nothing to refuse.
  return detail === 'ECONNREFUSED' || (isSix && ['EAFNOSUPPORT', 'EADDRNOTAVAIL', 'ENETUNREACH'].includes(detail));
}

function isDenied({ outcome, detail }: ProbeOutcome): boolean {
  return outcome === 'answered' && /^HTTP\/1\.[01] 4\d\d(?: |$)/.test(detail);
}

async function attempt(
  { networkNamespace, prober, signal }: SelfProbeOptions,
  probes: readonly Probe[],
): Promise<ProbeOutcome[]> {
  const lines = probes.map(({ kind, name, address, port, limitMs, bytes }) =>
    [kind, name, address, port, limitMs, bytes === undefined ? '-' : Buffer.from(bytes).toString('hex')].join(' '),
  );
  await using own = prober?.isReady === true ? undefined : new Prober();
  const answers = await (own ?? prober!).attempt({
    ...{ networkNamespace, probes: lines, signal },
    timeoutMs: ALLOWED_WITHIN_MS + DENIED_WITHIN_MS,
  });
  const found = new Map<string, ProbeOutcome>();
  for (const line of answers.split('\n')) {
    const [name = '', outcome = '', ms = '', detail = ''] = line.split(' ');
    const probe = probes.find((one) => one.name === name);
    if (probe === undefined) continue;
    const shown =
      outcome === 'answered' && probe.kind === 'ask' ? Buffer.from(detail, 'hex').toString('latin1') : detail;
    found.set(name, { name, outcome: outcome as ProbeOutcome['outcome'], elapsedMs: Number(ms), detail: shown });
  }
  return probes.map(({ name }) => found.get(name) ?? { name, outcome: 'missing', elapsedMs: 0, detail: '-' });
}

function failed(wrong: ProbeOutcome, outcomes: readonly ProbeOutcome[]): DecantError {
  const { name, outcome, detail, elapsedMs } = wrong;
  const isAllowed = name.startsWith('allowed-');
  const what = isAllowed ? `No allowed host could be reached (${name.slice(8)}` : `The fence does not hold (${name}`;
  const hint = isAllowed
    ? "Look at the bottle's routes and resolvers, and whether this machine reaches those hosts."
    : 'The bottle was taken down. This is a fault of decant or of this machine; run: decant doctor';
  const message = `${what}: ${outcome} after ${elapsedMs} ms, ${JSON.stringify(detail).slice(1, -1)}).`;
  return new DecantError('BOTTLE_PROBE_FAILED', message, { hint, details: { outcomes } });
}

function connectRequest(target: string): Uint8Array {
  return Buffer.from(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`, 'latin1');
}

function getRequest(host: string): Uint8Array {
  return Buffer.from(`GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`, 'latin1');
}

/** A DNS question (RFC 1035, 4.1) for the IPv4 addresses of a name. */
function question(name: string): Uint8Array {
  const labels = name.split('.').flatMap((label) => [Buffer.from([label.length]), Buffer.from(label, 'latin1')]);
  const header = Buffer.from([0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  randomBytes(2).copy(header);
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, 1, 0, 1])]);
}

function hostAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
    .map(({ address }) => address)
    .slice(0, MOST_HOST_ADDRESSES);
}

/** A port of the host that everything on the host reaches, on none of these port numbers. */
async function openCanary(taken: readonly number[]): Promise<AsyncDisposable & { readonly port: number }> {
  const servers: Server[] = [];
  const close = () => Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  try {
    for (let attempt = 0; attempt < 20; attempt++) {
      const server = createServer((socket) => socket.destroy());
      servers.push(server);
      const port = await listen(server);
      if (taken.includes(port) || port === PROXY_PORT) continue;
      await reach(port);
      return { port, [Symbol.asyncDispose]: async () => void (await close()) };
    }
  } catch (error) {
    await close();
    throw error;
  }
  await close();
  throw new DecantError('BOTTLE_PROBE_FAILED', 'No port of the host is free to try the fence with.');
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // Without an address: all of IPv6 and IPv4, or of IPv4 where there is no IPv6.
    server.listen(0, () => resolve((server.address() as { port: number }).port));
  });
}

/** The port answers on the host; otherwise its silence inside would prove nothing. */
function reach(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
    socket.once('error', reject);
  });
}
