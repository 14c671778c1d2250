import { decantPaths, diagnose } from '@decant/sdk';

import { invoke } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printable, printJson, stdout } from '../render/terminal.ts';

/** Opens no server: a data directory that cannot be used is one of the things to tell. */
export function doctorAction(options: CommonOptions): Promise<void> {
  return invoke(options, async ({ signal }) => {
    const diagnosis = await diagnose({ paths: decantPaths(), signal });
    if (options.json === true) {
      printJson(diagnosis);
      return;
    }
    const { bold, dim, green, yellow } = stdout.style;
    for (const section of diagnosis.sections) {
      print(bold(section.title));
      for (const { ok, name, why, mend } of section.checks) {
        print(
          `  ${ok ? green('yes') : yellow('no ')}  ${printable(name)}${why === undefined ? '' : `: ${printable(why)}`}`,
        );
        if (!ok && mend !== undefined) print(dim(`       ${printable(mend)}`));
      }
    }
  });
}
