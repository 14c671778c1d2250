export {
  requireBuildCells,
  runBuildCell,
  type BuildCellOptions,
  type BuildCellResult,
  type CellLimit,
} from './build-cell.ts';
export { CELL_USER_NAMESPACE_FD } from './cell-program.ts';
export { removeControlGroups, type GroupLimits } from './cgroup.ts';
export { controlGroupOf } from './cgroup-of.ts';
export { runConfinedTool, type ConfinedToolOptions } from './confined-tool.ts';
export { canHaveVolumes, probeJail, type JailCheck, type JailReport } from './probe.ts';
export { checkMounts } from './sandbox/mounts.ts';
export { openSandbox } from './sandbox/open-sandbox.ts';
export { SandboxReserve, type SandboxReserveOptions } from './sandbox/reserve.ts';
export type {
  Sandbox,
  SandboxContainer,
  SandboxCopyLimits,
  SandboxDisk,
  SandboxExec,
  SandboxExecOptions,
  SandboxExit,
  SandboxFiles,
  SandboxMount,
  SandboxOptions,
  TerminalSize,
} from './sandbox/types.ts';
export { seccompFilter } from './seccomp.ts';
export { resolveUser, type ImageUser } from './user.ts';
export { createVolume } from './volume.ts';
