import { constants } from 'node:fs';
import { chmod, mkdir, open } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { DecantError, errnoOf, isImageId, MIB, untilAborted } from '@decant/core';
import { isAccessible } from '@decant/core/node';

import { auditName, pruneAudits } from '../audit/audit-files.ts';
import { AuditLog } from '../audit/audit-log.ts';
import type { PreparedMachine } from '../backends/backend.ts';
import type { Fence, FenceOptions } from '../fence/fence.ts';
import { portsOf } from '../fence/ports.ts';
import type { BottlePlan } from '../plan/plan.ts';
import { withArtifact, withCertificate, withEndpoints, withSlug } from '../plan/plan-bottle.ts';
import { reaperOf } from '../stack/gc.ts';
import { processFacts } from '../stack/kinds.ts';
import { openStack, type BottleStack } from '../stack/stack.ts';
import type { Bottle, BottlePaths } from './bottle.ts';
import type { BottleEvent, OpenBottleDeps, ResolvedImage } from './deps.ts';
import type { OwnFiles } from './layer-without.ts';
import { LifeLine } from './life-line.ts';
import { RunningBottle } from './running-bottle.ts';
import { requireSealedNetwork } from './sealed-network.ts';
import type { SelfProbeOptions } from './self-probe.ts';
import { putTrustFiles } from './trust-files.ts';

/** The parts of a launch that a test of its order replaces. */
export interface LaunchParts {
  readonly openFence: (options: FenceOptions) => Promise<Fence>;
  readonly selfProbe: (options: SelfProbeOptions) => Promise<unknown>;
  readonly requireSameNetwork: (machine: string, fence: string) => Promise<void>;
}

/** Names of folders of bottles, besides slugs: none of them is a slug. */
const AUDIT_FOLDER = 'audit.d';
const MOST_CA_BYTES = MIB;
const NO_FILES: OwnFiles = { files: new Map(), folders: new Set() };

/**
 * Launches a bottle as its plan has it. In order: slug and ledger, state folder, image, machine prepared, fence, machine
 * started, trust files and self-probe, provisioning. Where the machine joins the fence's namespace, the fence is opened from the
 * start, the machine is started as soon as the namespace is there, and the fence is tried meanwhile. What was acquired is let
 * go in reverse order when a step fails, and at the end. The bottle ends by itself at its wall time, when its fence or machine ends, and when the signal aborts.
 * @throws JAIL_UNAVAILABLE when the plan has obstacles; BOTTLE_PROBE_FAILED; TIMEOUT when its wall time and BOTTLE_ENDED when something
 * else ended it during the launch.
 */
export async function launch(plan: BottlePlan, deps: OpenBottleDeps, parts: LaunchParts): Promise<Bottle> {
  const { backend, signal } = deps;
  signal?.throwIfAborted();
  const environment = checkedEnvironment(plan, deps);
  if (plan.obstacles.length > 0) {
    throw new DecantError('JAIL_UNAVAILABLE', `The backend ${plan.backend} cannot run here: ${plan.obstacles[0]}`, {
      hint: plan.obstacles.length > 1 ? plan.obstacles.slice(1).join(' ') : undefined,
    });
  }
  const upstreamCaPem = await readCertificates(plan.egress.upstreamCaFile);
  const directory = resolve(deps.directory);
  const startedMs = Date.now();
  const began = performance.now();
  const done = (name: BottleEvent['name']) => {
    deps.onEvent?.({ type: 'stage', name, elapsedMs: performance.now() - began });
  };
  const stack = await openStack({
    directory,
    name: plan.name,
    backend: plan.backend,
    image: plan.image,
    wallTimeMs: plan.limits.wallTimeMs,
    reap: reaperOf(directory, [backend]),
    faultHook: deps.faultHook,
  });
  const { slug } = stack.header;
  const life = new LifeLine({ slug, wallTimeMs: plan.limits.wallTimeMs, signal });
  try {
    done('claimed');
    const paths = await openFolders(stack, directory, slug);
    const isSealed = plan.egress.sealed === true;
    // Where there is no fence, there is nothing to record.
    const audit = isSealed
      ? undefined
      : await stack.hold(
          { kind: 'audit' },
          async () => new AuditLog({ path: paths.audit }),
          async (log) => {
            log.close();
            await pruneAudits(join(directory, AUDIT_FOLDER), (other) =>
              isAccessible(join(directory, `${other}.jsonl`)),
            );
          },
        );
    const namespace = Promise.withResolvers<string>();
    const openFence = (network: FenceOptions['network']) =>
      enterFence(stack, () =>
        parts.openFence({
          network,
          ports: portsOf(plan.egress.policy),
          policy: plan.egress.policy,
          resolvers: plan.egress.resolvers.length === 0 ? undefined : plan.egress.resolvers,
          upstreamCaPem,
          onNamespace: namespace.resolve,
          onAudit: (event) => audit?.append(event),
          signal: life.signal,
        }),
      );
    const early = !isSealed && backend.joinsNetwork === true ? openFence('new') : undefined;
    early?.catch(() => undefined);
    const probe = (networkNamespace: string, { prober, certificatePem }: Fence) =>
      parts.selfProbe({ networkNamespace, policy: plan.egress.policy, certificatePem, prober, signal: life.signal });
    const tried = early?.then((fence) => probe(fence.networkNamespace, fence));
    tried?.catch(() => undefined);
    const resolved = await adopt(stack, 'image', () =>
      deps.resolveImage({ ref: plan.image, scratchDirectory: join(paths.state, 'image'), signal: life.signal }),
    );
    done('image');
    const prepared = await prepare(stack, plan, deps, { slug, resolved, paths, life });
    done('prepared');
    const fencing = isSealed ? Promise.resolve(undefined) : (early ?? openFence(prepared.network));
    const opening = fencing.then((fence) => {
      void fence?.ended.then(({ reason }) => life.end('fence-ended', `Its fence has ended: ${reason}`));
      done('fenced');
      return fence;
    });
    const opened = opening.then((fence) => fence?.networkNamespace);
    const enter = async () => {
      const networkNamespace = await (early === undefined ? opened : Promise.race([namespace.promise, opened]));
      const machine = await adopt(stack, 'machine', () => prepared.start({ networkNamespace }));
      void machine.ended.then(({ reason }) => life.end('machine-ended', `Its machine has ended: ${reason}`));
      done('started');
      return machine;
    };
    const [fence, machine] = await bothEnded(opening, enter(), () => life.end('failed', 'Its launch failed.'));
    let own: OwnFiles = NO_FILES;
    await untilAborted(
      Promise.all(
        fence === undefined
          ? [requireSealedNetwork(machine.networkNamespace)]
          : [
              putTrustFiles({ fence, machine, imageKey: imageKeyOf(plan, resolved), signal: life.signal }).then(
                (files) => (own = files),
              ),
              tried ?? probe(machine.networkNamespace, fence),
              // Which network a process is in depends on its namespace alone: what held there holds in a machine that joined it.
              ...(tried ? [parts.requireSameNetwork(machine.networkNamespace, fence.networkNamespace)] : []),
            ],
      ),
      life.signal,
    );
    done('probed');
    const launched = launchedPlan(plan, { slug, fence, resolved });
    const bottle = new RunningBottle({
      plan: launched,
      paths,
      machine,
      fence,
      stack,
      life,
      startedMs,
      environment: { ...fence?.env, ...environment },
      imageConfig: resolved.image.config,
      own,
    });
    if (deps.provision !== undefined) {
      await untilAborted(deps.provision(launched, bottle), life.signal);
      done('provisioned');
    }
    life.signal.throwIfAborted();
    bottle.watch();
    return bottle;
  } catch (error) {
    life.end('failed', 'Its launch failed.');
    const cleanup = await stack.close().then(
      () => [],
      (failure: unknown) => (failure instanceof AggregateError ? failure.errors : [failure]),
    );
    throw withCleanup(life.failureOf(error), cleanup, slug);
  }
}

function withCleanup(error: unknown, cleanup: readonly unknown[], slug: string): unknown {
  if (cleanup.length === 0) return error;
  const message = `the launch of ${slug} failed, and not all of it could be undone`;
  return new AggregateError([error, ...cleanup], message, { cause: error });
}

/** Both have ended when this settles, so that nothing comes into being while the rest is undone. */
async function bothEnded<A, B>(one: Promise<A>, other: Promise<B>, onFailure: () => void): Promise<[A, B]> {
  const both = Promise.all([one, other]);
  both.catch(onFailure);
  await Promise.allSettled([one, other]);
  return await both;
}

/** Puts a resource of this process on the stack; what it holds outside of it, it claims itself. */
async function adopt<T extends AsyncDisposable>(stack: BottleStack, kind: string, make: () => Promise<T>): Promise<T> {
  const value = await make();
  try {
    return await stack.hold(
      { kind },
      async () => value,
      async () => value[Symbol.asyncDispose](),
    );
  } catch (error) {
    await value[Symbol.asyncDispose]();
    throw error;
  }
}

async function prepare(
  stack: BottleStack,
  plan: BottlePlan,
  { backend }: OpenBottleDeps,
  parts: {
    readonly slug: string;
    readonly resolved: ResolvedImage;
    readonly paths: BottlePaths;
    readonly life: LifeLine;
  },
): Promise<PreparedMachine> {
  const { slug, resolved, paths, life } = parts;
  const { image } = resolved;
  return await adopt(stack, 'prepared', () =>
    backend.prepare(
      {
        slug,
        image: plan.agent.user === undefined ? image : { ...image, config: { ...image.config, User: plan.agent.user } },
        hostname: slug,
        mounts: plan.mounts,
        limits: plan.limits,
        stateDirectory: join(paths.state, 'machine'),
        signal: life.signal,
      },
      stack,
    ),
  );
}

/** Images whose id says what is in them are the same when it is the same, and nothing is mounted over them. */
function imageKeyOf(plan: BottlePlan, { image }: ResolvedImage): string | undefined {
  return isImageId(image.id) && plan.mounts.length === 0 ? image.id : undefined;
}

function enterFence(stack: BottleStack, open: () => Promise<Fence>): Promise<Fence> {
  return stack.hold(
    { kind: 'fence' },
    async (note) => {
      const fence = await open();
      await note(await processFacts(fence.processId));
      return fence;
    },
    (fence) => fence.close(),
  );
}

async function openFolders(stack: BottleStack, directory: string, slug: string): Promise<BottlePaths> {
  const state = join(directory, slug);
  const reapFolder = () => reaperOf(directory, [])({ kind: 'directory', path: state }, stack.header);
  await stack.enter(
    { kind: 'directory', path: state },
    async () => {
      await mkdir(state, { mode: 0o700 }).catch(async (error: unknown) => {
        if (errnoOf(error) !== 'EEXIST') throw error;
        // The slug is ours: what lies there lost its ledger.
        await reapFolder();
        await mkdir(state, { mode: 0o700 });
      });
      // Whatever the umask is: backends' own ids look into none of them by name.
      await chmod(state, 0o700);
      for (const name of ['image', 'machine']) await mkdir(join(state, name), { mode: 0o700 });
    },
    reapFolder,
  );
  const audits = join(directory, AUDIT_FOLDER);
  await mkdir(audits, { recursive: true, mode: 0o700 });
  return { state, audit: join(audits, auditName(stack.header)) };
}

function launchedPlan(
  plan: BottlePlan,
  parts: { readonly slug: string; readonly fence: Fence | undefined; readonly resolved: ResolvedImage },
): BottlePlan {
  const { slug, fence, resolved } = parts;
  if (fence === undefined) return withArtifact(withSlug(plan, slug), resolved.image);
  const proxy = fence.env['HTTPS_PROXY'];
  const reachable = withEndpoints(withSlug(plan, slug), { networkNamespace: fence.networkNamespace, proxy });
  return withArtifact(withCertificate(reachable, fence.certificatePem), resolved.image);
}

function checkedEnvironment(plan: BottlePlan, { environment = {} }: OpenBottleDeps): Readonly<Record<string, string>> {
  const names = Object.keys(environment).sort();
  const planned = plan.agent.environmentNames;
  const extra = names.find((name) => !planned.includes(name));
  const missing = planned.find((name) => !names.includes(name));
  const wrong = extra ?? missing;
  if (wrong === undefined) return environment;
  throw new DecantError(
    'USAGE',
    `The variable ${wrong} is ${extra === undefined ? 'planned and not given' : 'not in the plan'}.`,
  );
}

async function readCertificates(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  const refuse = (why: string, cause?: unknown) =>
    new DecantError('CONFIG_INVALID', `The file of certificates ${path} ${why}.`, cause === undefined ? {} : { cause });
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: unknown) => {
    throw refuse('cannot be read', error);
  });
  try {
    const info = await handle.stat();
    if (!info.isFile()) throw refuse('is no file');
    if (info.size > MOST_CA_BYTES) throw refuse(`has more than ${MOST_CA_BYTES} bytes`);
    const text = await handle.readFile('utf8');
    if (!text.includes('-----BEGIN CERTIFICATE-----')) throw refuse('holds no certificate (PEM)');
    return text;
  } finally {
    await handle.close();
  }
}
