import { Command } from 'commander';

import { invoke, withCommonOptions, type CommonOptions } from '../command.ts';
import { bold, dim, green, printable, printJson, yellow } from '../render/terminal.ts';

export function doctorCommand(): Command {
  return withCommonOptions(new Command('doctor'))
    .description('say what this machine can do, why not, and how to mend it')
    .action((options: CommonOptions) => doctorAction(options));
}

function doctorAction(options: CommonOptions): Promise<void> {
  return invoke(options, async ({ paths, signal }) => {
    const { diagnose } = await import('@decant/sdk');
    const diagnosis = await diagnose({ paths, signal });
    if (options.json === true) {
      printJson(diagnosis);
      return;
    }
    for (const section of diagnosis.sections) {
      process.stdout.write(`${bold(section.title)}\n`);
      for (const check of section.checks) {
        const mark = check.ok ? green('yes') : yellow('no ');
        process.stdout.write(
          `  ${mark}  ${printable(check.name)}${check.why === undefined ? '' : `: ${printable(check.why)}`}\n`,
        );
        if (!check.ok && check.mend !== undefined) process.stdout.write(dim(`       ${printable(check.mend)}\n`));
      }
    }
  });
}
