import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import type { Duplex } from 'node:stream';

import { DecantError } from '@decant/core';

import { DNS_PORT, portsOf, PROXY_PORT } from '../fence/ports.ts';
import { Prober } from '../fence/prober.ts';
import type { EgressPolicy, Pins } from '../net/policy.ts';
import { verdict } from '../net/verdict.ts';
import { openHostPort } from './host-port.ts';
import { allowedTargets, tryAllowed, WRONG_CERTIFICATE, type AllowedTarget } from './probe-allowed.ts';

export interface SelfProbeOptions {
  /** Path of the namespace that the machine's processes are in. */
  readonly networkNamespace: string;
  readonly policy: EgressPolicy;
  /** Of the fence: what it opens TLS with. */
  readonly certificatePem: string;
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
  readonly holds: (outcome: ProbeOutcome) => boolean;
}

/** A refusal that takes longer is no refusal. */
const DENIED_WITHIN_MS = 3000;
/** An allowed name is looked up and its host reached, which may take their time. */
const ALLOWED_WITHIN_MS = 15_000;
/** Times that the denied are tried while some are only late. */
const ATTEMPTS = 3;
const MOST_HOST_ADDRESSES = 4;
/** Addresses for documentation (RFC 5737, RFC 3849): nobody has them, and only a test's policy could allow them. */
const ADDRESSES = ['192.0.2.1', '198.51.100.1', '203.0.113.1'];
const ADDRESSES_6 = ['2001:db8::1', '2001:db8:ffff::1'];
/** Of most clouds, and in no policy's power. */
const METADATA = '169.254.169.254';
const NO_PINS: Pins = { addressesOf: () => undefined, namesOf: () => [] };

/**
 * Proves from inside that the fence holds, before anything of the image runs: addresses that are denied, a name that is denied, a metadata service and a port of
 * the host must be refused at once, on their own and through the proxy; and one allowed host, where the policy names one, must be reached, with TLS opened by
 * this fence's own authority. The attempts come from a process of the host's perl in the machine's network namespace, as an id that owns
 * nothing: nothing of the image is needed or trusted.
 * @throws BOTTLE_PROBE_FAILED
 */
export async function selfProbe(options: SelfProbeOptions): Promise<readonly ProbeOutcome[]> {
  const { policy } = options;
  await using canary = await openHostPort(portsOf(policy));
  const probes = deniedProbes(policy, canary.port);
  const allowed = reach(options, allowedTargets(policy));
  allowed.catch(() => undefined);
  let outcomes = await attempt(options, probes);
  const wrongIn = (all: readonly ProbeOutcome[]) => all.filter((outcome, index) => !probes[index]!.holds(outcome));
  // A busy machine is slow once or twice; where nobody refuses, it is slow each time.
  for (let again = 1; again < ATTEMPTS && wrongIn(outcomes).some(isLate); again++) {
    outcomes = await attempt(options, probes);
  }
  const reached = await allowed;
  const all = [...outcomes, ...reached];
  const [wrong] = wrongIn(outcomes);
  if (wrong !== undefined) throw failed(wrong, all);
  const foreign = reached.find(({ detail }) => detail.startsWith(WRONG_CERTIFICATE));
  if (foreign !== undefined) throw failed(foreign, all);
  if (reached.length > 0 && !reached.some(({ outcome }) => outcome === 'answered')) throw failed(reached[0]!, all);
  return all;
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
    probes.push({ name: `host-port-${address}`, kind: 'tcp', address, port: canaryPort, limitMs, holds });
  }
  for (const address of [deniedAddress(policy, ADDRESSES), deniedAddress(policy, ADDRESSES_6)]) {
    if (address === undefined) continue;
    const isSix = address.includes(':');
    const host = isSix ? `[${address}]` : address;
    const refused = (outcome: ProbeOutcome) => isDenied(outcome) || isRefused(outcome, isSix);
    const base = { limitMs, kind: 'ask' } as const;
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
  const through = { kind: 'ask', address: '127.0.0.1', port: PROXY_PORT, limitMs, holds: isDenied } as const;
  const name = `${randomBytes(6).toString('hex')}.invalid`;
  probes.push(
    { ...through, name: 'proxied-host-port', bytes: connectRequest(`127.0.0.1:${canaryPort}`) },
    { ...through, name: 'proxied-name', bytes: connectRequest(`${name}:443`) },
    { ...through, name: 'metadata', address: METADATA, port: 80, bytes: getRequest(METADATA) },
  );
  probes.push({
    ...{ name: 'name', kind: 'dns', address: '127.0.0.1', port: DNS_PORT, limitMs },
    bytes: question(name),
    // NXDOMAIN or REFUSED (RFC 1035, 4.1.1).
    holds: ({ outcome, detail }) =>
      outcome === 'answered' && [3, 5].includes(Number.parseInt(detail.slice(6, 8), 16) & 15),
  });
  return probes;
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

/** Nothing came in time; or the probe was held up before it had said what it wants, and the fence did not wait for it. */
function isLate({ outcome, detail }: ProbeOutcome): boolean {
  return outcome === 'slow' || (outcome === 'failed' && detail === 'ECONNRESET');
}

/** Outcomes of the probes, in their order. */
async function attempt(
  { networkNamespace, prober, signal }: SelfProbeOptions,
  probes: readonly Probe[],
): Promise<readonly ProbeOutcome[]> {
  const lines = probes.map(({ kind, name, address, port, limitMs, bytes }) =>
    [kind, name, address, port, limitMs, bytes === undefined ? '-' : Buffer.from(bytes).toString('hex')].join(' '),
  );
  await using own = prober?.isReady === true ? undefined : new Prober();
  const timeoutMs = ALLOWED_WITHIN_MS + DENIED_WITHIN_MS;
  return outcomesIn(await (own ?? prober!).attempt({ networkNamespace, probes: lines, timeoutMs, signal }), probes);
}

/** Outcomes of the allowed hosts that were tried, by a process that leads to the fence's proxy. */
async function reach(
  { networkNamespace, certificatePem, signal }: SelfProbeOptions,
  targets: readonly AllowedTarget[],
): Promise<readonly ProbeOutcome[]> {
  if (targets.length === 0) return [];
  await using prober = new Prober(targets.length);
  const lines = targets.map((_, i) => `pass pass-${i} 127.0.0.1 ${PROXY_PORT} ${ALLOWED_WITHIN_MS} ${i + 3}`);
  const timeoutMs = ALLOWED_WITHIN_MS + DENIED_WITHIN_MS;
  const passing = prober.attempt({ networkNamespace, probes: lines, timeoutMs, signal });
  const reached = await firstReached(targets, prober.passages, certificatePem);
  await passing;
  return reached;
}

/** Tries all at once until one is reached; the others are let go. Those in plain HTTP only when none of the others is. */
async function firstReached(
  targets: readonly AllowedTarget[],
  streams: readonly Duplex[],
  certificatePem: string,
): Promise<readonly ProbeOutcome[]> {
  const outcomes: ProbeOutcome[] = [];
  for (const plain of [false, true]) {
    const tried = targets.flatMap((target, i) =>
      (target.kind === 'plain') === plain ? [[target, streams[i]!] as const] : [],
    );
    const one = Promise.withResolvers<void>();
    const all = tried.map(async ([target, stream]) => {
      const outcome = await tryAllowed(stream, target, certificatePem);
      outcomes.push(outcome);
      if (outcome.outcome === 'answered') one.resolve();
    });
    await Promise.race([one.promise, Promise.all(all)]);
    if (outcomes.some(({ outcome }) => outcome === 'answered')) break;
  }
  for (const stream of streams) stream.destroy();
  return [...outcomes];
}

function outcomesIn(text: string, probes: readonly Probe[]): readonly ProbeOutcome[] {
  const found = new Map<string, ProbeOutcome>();
  for (const line of text.split('\n')) {
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
  const isAllowed = name.startsWith('allowed-') && !detail.startsWith(WRONG_CERTIFICATE);
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
