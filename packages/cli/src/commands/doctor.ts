import type { Command } from 'commander';

import { withCommonOptions } from '../options.ts';

export function addDoctorCommand(program: Command): void {
  withCommonOptions(program.command('doctor'))
    .description('say what this machine can do, why not, and how to mend it')
    .action(async (options) => (await import('./doctor-diagnose.ts')).doctorAction(options));
}
