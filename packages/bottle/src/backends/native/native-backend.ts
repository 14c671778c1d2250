import { canHaveVolumes, openSandbox, probeJail, removeControlGroups, type SandboxReserve } from '@decant/jail';

import type { Backend, BackendReport, MachineRequest, PreparedMachine, ResourceStack } from '../backend.ts';
import { machineOf } from '../sandbox-machine.ts';

export interface NativeBackendOptions {
  /** Folders that no mount may show: where decant keeps its images, keys and bottles. */
  readonly hiddenFolders?: readonly string[] | undefined;
  /** Programs that were started ahead of the bottles, for launches that must be quick; the caller disposes of it. */
  readonly reserve?: SandboxReserve | undefined;
}

/** What a killed supervisor can leave: its empty control groups. All else ends with it. */
const CLAIM = 'native-machine';

/** Bottles as sandboxes of this machine: namespaces, mapped ids, a write layer over the mounted image, control groups. */
export function nativeBackend({ hiddenFolders = [], reserve }: NativeBackendOptions = {}): Backend {
  // What this machine can do stays so while it can.
  let usable: BackendReport | undefined;
  return {
    name: 'native',
    joinsNetwork: true,
    async probe(signal) {
      if (usable !== undefined) return usable;
      const report = await probeNative(signal);
      if (report.usable) usable = report;
      return report;
    },
    prepare: (request, stack) => Promise.resolve(prepare(request, stack, { hiddenFolders, reserve })),
    async reap({ kind }) {
      if (kind === CLAIM) await removeControlGroups();
    },
  };
}

async function probeNative(signal?: AbortSignal): Promise<BackendReport> {
  // Also the control groups, which only limits need: a bottle has some.
  const { checks } = await probeJail({ signal });
  const reasons = checks.filter((check) => !check.ok).map(({ why = '', mend = '' }) => `${why} ${mend}`.trim());
  return { usable: reasons.length === 0, reasons, weaknesses: [] };
}

function prepare(
  { slug, image, hostname, mounts, limits, stateDirectory, signal }: MachineRequest,
  stack: ResourceStack,
  { hiddenFolders, reserve }: NativeBackendOptions,
): PreparedMachine {
  return {
    network: 'new',
    async start({ networkNamespace }) {
      const { memoryBytes, processes, cpus, bestEffort } = limits;
      const kind = bestEffort !== true || (await canHaveVolumes()) ? 'disk' : 'memory';
      // Control groups are in the kernel's memory, and the state folder has a claim of its own.
      const sandbox = await stack.hold(
        { kind: CLAIM, slug },
        () =>
          openSandbox({
            ...{ disk: image.disk, filesystem: image.filesystem, user: image.config.User },
            ...{ hostname, networkNamespace, mounts, stateDirectory, hiddenFolders, reserve, signal },
            writeLayer: { kind, bytes: limits.diskBytes },
            limits: { memoryBytes, processes, cpus, bestEffort },
          }),
        async (opened) => {
          await opened[Symbol.asyncDispose]();
        },
      );
      return machineOf(sandbox, image.config);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
