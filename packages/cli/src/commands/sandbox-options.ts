import { Option, type Command } from 'commander';

/** Options of everything that runs in a bottle, as they are typed. */
export interface SandboxOptions {
  readonly name?: string;
  readonly backend?: 'native' | 'docker';
  readonly allow?: readonly string[];
  readonly env?: readonly string[];
  readonly user?: string;
  readonly workdir?: string;
  readonly mount?: readonly string[];
  readonly cpus?: string;
  readonly memory?: string;
  readonly disk?: string;
  readonly processes?: string;
  readonly time?: string;
  readonly trustFilesystem?: boolean;
}

export function withSandboxOptions(command: Command): Command {
  return command
    .option('--name <name>', 'what the bottle is called; a number is added while another one has the name')
    .addOption(new Option('--backend <backend>', 'what runs it').choices(['native', 'docker']))
    .option('--allow <host[:port]>', 'let it reach a host by HTTP; may be given more than once', collect)
    .option(
      '-e, --env <name=value>',
      'set a variable, or with NAME alone pass it on; may be given more than once',
      collect,
    )
    .option('-u, --user <user>', "name or number, with an optional :group (default: the image's)")
    .option('-w, --workdir <path>', "working directory (default: the image's)")
    .option('--mount <type:source:target>', 'read-only, read-write or overlay; may be given more than once', collect)
    .option('--cpus <n>', 'processors of time, such as 1.5')
    .option('--memory <size>', 'memory, such as 2GiB')
    .option('--disk <size>', 'what it may write, such as 10GiB')
    .option('--processes <n>', 'most processes')
    .option('--time <time>', 'end it after so many seconds, or 90m, 12h')
    .option('--trust-filesystem', 'let the kernel mount a filesystem that decant did not make');
}

/** For an option that may be given more than once. */
export function collect(value: string, previous: readonly string[] = []): string[] {
  return [...previous, value];
}
