import { X509Certificate } from 'node:crypto';
import { Resolver } from 'node:dns';

import { DecantError, Scope } from '@decant/core';

import type { AuditEvent } from '../audit/audit-event.ts';
import { DEFAULT_EGRESS_LIMITS } from '../egress/limits.ts';
import { fenceEnv, trustFilesOf } from '../egress/trust.ts';
import { policyProblems } from '../net/compiled-policy.ts';
import type { EgressPolicy } from '../net/policy.ts';
import type {
  Fence,
  FenceConfiguration,
  FenceListeners,
  FenceListenersOptions,
  FenceOptions,
  FenceStats,
  TrustFile,
} from './fence.ts';
import { checkedPorts, portsOf } from './ports.ts';
import { Prober } from './prober.ts';
import { startSidecar, type SidecarProcess, type StartedSidecar } from './sidecar-process.ts';

/**
 * Opens the one way out of a bottle: a network namespace whose every address is local, listeners in it, and the sidecar that judges and
 * records what comes to them. Needs root on Linux.
 * @throws CONFIG_INVALID for the policy, JAIL_UNAVAILABLE, JAIL_FAILED when the namespace cannot be set up.
 */
export async function openFence(options: FenceOptions): Promise<Fence> {
  const ports = [...portsOf(options.policy), ...(options.ports ?? [])];
  checkConfiguration(options, checkedPorts(ports));
  const listeners = await openFenceListeners({ ...options, ports });
  try {
    return await listeners.configure(options, options.signal);
  } catch (error) {
    await listeners[Symbol.asyncDispose]();
    throw error;
  }
}

/** The first half of {@link openFence}, which needs no policy: for launches that must be quick. Nothing passes before `configure`. */
export async function openFenceListeners(options: FenceListenersOptions): Promise<FenceListeners> {
  const ports = checkedPorts(options.ports ?? []);
  const starting = startSidecar(options, ports);
  await using scope = new Scope();
  const prober = scope.use(new Prober());
  const started = await starting;
  scope.defer(() => started.sidecar.close());
  if (!isAuthority(started.certificatePem)) throw started.sidecar.failure('its certificate cannot be read');
  scope.move();
  return new OpenListeners(started, prober, ports);
}

function isAuthority(pem: string): boolean {
  try {
    return new X509Certificate(pem).ca;
  } catch {
    return false;
  }
}

class OpenListeners implements FenceListeners {
  readonly networkNamespace: string;
  readonly processId: number;
  readonly ports: readonly number[];
  readonly ended: Promise<{ readonly reason: string }>;
  readonly #sidecar: SidecarProcess;
  readonly #prober: Prober;
  readonly #certificatePem: string;
  #taken = false;

  constructor({ sidecar, certificatePem, networkNamespace }: StartedSidecar, prober: Prober, ports: readonly number[]) {
    this.#sidecar = sidecar;
    this.#prober = prober;
    this.#certificatePem = certificatePem;
    this.networkNamespace = networkNamespace;
    this.processId = sidecar.pid;
    this.ports = ports;
    this.ended = sidecar.ended;
  }

  async configure(configuration: FenceConfiguration, signal?: AbortSignal): Promise<Fence> {
    if (this.#taken) throw new DecantError('USAGE', 'The listeners of a fence are configured once.');
    checkConfiguration(configuration, this.ports);
    this.#taken = true;
    const { policy, resolvers, upstreamCaPem, limits, onAudit } = configuration;
    this.#sidecar.onAudit = onAudit;
    onAudit(fenceEvent('opened', `The policy has ${policy.routes.length} routes.`));
    void this.#sidecar.ended.then(({ reason }) => {
      try {
        onAudit(fenceEvent('ended', reason));
      } catch {
        // The log may be closed by now; `ended` tells the reason too.
      }
    });
    const common = { policy, limits: { ...DEFAULT_EGRESS_LIMITS, ...limits } };
    await this.#sidecar.ask({ type: 'configure', ...common, resolvers, upstreamCaPem }, 'configured', signal);
    const parts = { sidecar: this.#sidecar, prober: this.#prober, ports: this.ports, onAudit };
    return new OpenFence({ ...parts, certificatePem: this.#certificatePem, networkNamespace: this.networkNamespace });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#sidecar.close(), this.#prober[Symbol.asyncDispose]()]);
  }
}

interface FenceParts {
  readonly sidecar: SidecarProcess;
  readonly prober: Prober;
  readonly ports: readonly number[];
  readonly certificatePem: string;
  readonly networkNamespace: string;
  readonly onAudit: (event: AuditEvent) => void;
}

class OpenFence implements Fence {
  readonly networkNamespace: string;
  readonly processId: number;
  readonly certificatePem: string;
  readonly env = fenceEnv();
  readonly prober: Prober;
  readonly ended: Promise<{ readonly reason: string }>;
  readonly #sidecar: SidecarProcess;
  readonly #ports: readonly number[];
  readonly #onAudit: (event: AuditEvent) => void;

  constructor({ sidecar, prober, ports, certificatePem, networkNamespace, onAudit }: FenceParts) {
    this.#sidecar = sidecar;
    this.prober = prober;
    this.#onAudit = onAudit;
    this.#ports = ports;
    this.certificatePem = certificatePem;
    this.networkNamespace = networkNamespace;
    this.processId = sidecar.pid;
    this.ended = sidecar.ended;
  }

  trustFiles(read: (path: string) => Promise<Uint8Array | undefined>): Promise<readonly TrustFile[]> {
    return trustFilesOf(this.certificatePem, read);
  }

  async reload(policy: EgressPolicy): Promise<void> {
    checkPolicy(policy, this.#ports);
    this.#onAudit(fenceEvent('policy-changed', `The policy has ${policy.routes.length} routes.`));
    await this.#sidecar.ask({ type: 'reload', policy }, 'reloaded');
  }

  async stats(): Promise<FenceStats> {
    return (await this.#sidecar.ask({ type: 'stats' }, 'stats')).stats;
  }

  async close(): Promise<void> {
    await Promise.all([this.#sidecar.close(), this.prober[Symbol.asyncDispose]()]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function fenceEvent(rule: 'opened' | 'policy-changed' | 'ended', reason: string): AuditEvent {
  return { time: new Date().toISOString(), type: 'fence', decision: 'info', rule, reason: reason.slice(0, 512) };
}

function checkConfiguration({ policy, resolvers, upstreamCaPem }: FenceConfiguration, ports: readonly number[]): void {
  checkPolicy(policy, ports);
  if (resolvers?.length === 0) {
    throw new DecantError('CONFIG_INVALID', 'The list of resolvers is empty.', {
      hint: "Leave it out for the host's own, or name at least one address.",
    });
  }
  for (const server of resolvers ?? []) checkResolver(server);
  if (upstreamCaPem !== undefined) checkPem(upstreamCaPem);
}

function checkPolicy(policy: EgressPolicy, ports: readonly number[]): void {
  const problems = policyProblems(policy);
  if (problems.length > 0) {
    throw new DecantError('CONFIG_INVALID', `The egress policy cannot be used: ${problems[0]}`, {
      details: { problems },
    });
  }
  const missing = portsOf(policy).filter((port) => !ports.includes(port));
  if (missing.length > 0) {
    throw new DecantError(
      'CONFIG_INVALID',
      `Port ${missing.join(', ')} of the egress policy was not opened with the fence.`,
      {
        hint: 'Connections are caught only on ports that were known when the fence was opened: start the bottle anew.',
      },
    );
  }
}

function checkResolver(server: string): void {
  try {
    new Resolver().setServers([server]);
  } catch (error) {
    throw new DecantError('CONFIG_INVALID', `The resolver ${JSON.stringify(server)} is no address.`, {
      hint: 'Write 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:53.',
      cause: error,
    });
  }
}

function checkPem(pem: string): void {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  try {
    if (blocks.length === 0) throw new Error('it holds none');
    // Reading one is the check; what it says is for the handshake.
    blocks.map((block) => new X509Certificate(block));
  } catch (error) {
    throw new DecantError('CONFIG_INVALID', 'The certificates for upstreams cannot be read.', {
      hint: 'Give PEM certificates, each between BEGIN CERTIFICATE and END CERTIFICATE.',
      cause: error,
    });
  }
}
