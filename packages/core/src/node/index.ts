export { endGroup, findProgram, run, type RunOptions, type RunResult } from './run.ts';
export { bootId, processNamespace, processStart } from './process-start.ts';
export { isAccessible } from './is-accessible.ts';
export { openScratchDirectory, type ScratchDirectory } from './scratch-directory.ts';
export { spooled } from './spool.ts';
export { writeAt } from './write-at.ts';
