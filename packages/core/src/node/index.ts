export { endGroup, findProgram, run, type RunOptions, type RunResult } from './run.ts';
