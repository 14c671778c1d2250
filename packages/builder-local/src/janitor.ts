import { spawn } from 'node:child_process';

/**
 * Waits for its standard input: the word `done`, and it has nothing to do; the end of it without that word means that
 * the process it works for is gone. Then it removes the working containers whose record names the mark, and the
 * build's directory. What the kernel still takes apart may be busy at first, so it tries for some seconds.
 *   $1 directory   $2 directory of container records, or empty   $3 mark   $4 the command that removes containers
 *   $5 the prefix of a command that may remove files of subordinate ids; both are quoted for the shell
 */
const SCRIPT = `
trap '' HUP INT TERM
if read -r word && [ "$word" = done ]; then exit 0; fi
root=$1
for attempt in 1 2 3 4 5 6 7 8; do
  left=
  ids=
  [ -n "$2" ] && for record in $(cd "$2" && grep -lF "id=$3," ./*/userdata/buildah.json 2>/dev/null); do
    id=\${record#./}
    ids="$ids \${id%%/*}"
  done
  if [ -n "$ids" ]; then eval "$4 $ids" || left=yes; fi
  rm -rf -- "$root" || { [ -n "$5" ] && eval "$5 rm -rf -- \\"\\$root\\""; } || left=yes
  [ -z "$left" ] && [ ! -e "$root" ] && exit 0
  sleep 0.5
done`;

const quoted = (command: readonly string[]) => command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');

/** What to remove when this process is gone before the build has ended. */
export interface JanitorTask {
  /** The build's private directory. */
  readonly root: string;
  readonly containers?:
    | {
        /** Directory of the engine's container records. */
        readonly records: string;
        readonly mark: string;
        /** The command that removes containers; their ids follow. */
        readonly remove: readonly string[];
        /** What an ordinary user's commands enter the engine's user namespace with; empty for root. */
        readonly enter: readonly string[];
      }
    | undefined;
  readonly env: NodeJS.ProcessEnv;
}

/**
 * A small process that outlives this one, however it ends, and then cleans up after the build within about a
 * second. Disposing of it ends it. None on Windows, which has no shell for it.
 */
export function startJanitor({ root, containers, env }: JanitorTask): AsyncDisposable {
  if (process.platform === 'win32') return { [Symbol.asyncDispose]: () => Promise.resolve() };
  const { records = '', mark = '', remove = [], enter = [] } = containers ?? {};
  const child = spawn('/bin/sh', ['-c', SCRIPT, 'decant-janitor', root, records, mark, quoted(remove), quoted(enter)], {
    // A group of its own: it must not get the signal that ends this process.
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
    // Of any directory: it must not keep one busy.
    cwd: '/',
    env,
  });
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });
  child.stdin.on('error', () => undefined);
  child.unref();
  return {
    [Symbol.asyncDispose]() {
      child.ref();
      child.stdin.end('done\n');
      return ended;
    },
  };
}
