export { runConfinedTool, type ConfinedToolOptions } from './confined-tool.ts';
export { probeJail, type JailCheck, type JailReport } from './probe.ts';
export { runImage, type GuestStreams, type RunImageOptions, type RunImageResult } from './run-image.ts';
export { seccompFilter } from './seccomp.ts';
export { resolveUser, type ImageUser } from './user.ts';
