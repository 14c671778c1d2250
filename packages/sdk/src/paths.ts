import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** The directories decant uses on this machine. */
export interface DecantPaths {
  /** Everything that must last: metadata and objects of the embedded server. */
  readonly home: string;
  /** Verified chunks, kept to be read again; may be deleted at any time. */
  readonly cache: string;
  /** Scratch files of running commands; what a killed command left is removed by the next one. */
  readonly scratch: string;
}

/**
 * The directories as `DECANT_HOME` and the XDG variables have them: `$DECANT_HOME`, else
 * `$XDG_DATA_HOME/decant`, else `~/.local/share/decant`. Scratch files go to `$TMPDIR` only when it is set;
 * else below home, where there is room for images.
 */
export function decantPaths(env: Readonly<Record<string, string | undefined>> = process.env): DecantPaths {
  const given = env['DECANT_HOME'];
  const data = env['XDG_DATA_HOME'];
  const home = resolve(
    given !== undefined && given !== ''
      ? given
      : data !== undefined && data !== ''
        ? join(data, 'decant')
        : join(homedir() || tmpdir(), '.local', 'share', 'decant'),
  );
  const temporary = env['TMPDIR'];
  return {
    home,
    cache: join(home, 'cache'),
    scratch:
      temporary !== undefined && temporary !== ''
        ? join(temporary, `decant-${process.getuid?.() ?? 0}`)
        : join(home, 'scratch'),
  };
}
