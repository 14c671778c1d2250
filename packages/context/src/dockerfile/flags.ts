/** Parts of the Dockerfile language that some engine of today lacks. */
export type DockerfileFeature =
  | 'heredoc'
  | 'RUN --mount'
  | 'RUN --network'
  | 'RUN --security'
  | 'RUN --device'
  | 'COPY --chmod'
  | 'COPY --link'
  | 'COPY --parents'
  | 'COPY --exclude'
  | 'ADD --checksum'
  | 'ADD --keep-git-dir'
  | 'ADD --unpack';

/** The feature that a flag is, by instruction and flag; flags that every engine has are not here. */
const FLAG_FEATURES: ReadonlyMap<string, DockerfileFeature> = new Map([
  ['RUN --mount', 'RUN --mount'],
  ['RUN --network', 'RUN --network'],
  ['RUN --security', 'RUN --security'],
  ['RUN --device', 'RUN --device'],
  ['COPY --chmod', 'COPY --chmod'],
  ['ADD --chmod', 'COPY --chmod'],
  ['COPY --link', 'COPY --link'],
  ['ADD --link', 'COPY --link'],
  ['COPY --parents', 'COPY --parents'],
  ['COPY --exclude', 'COPY --exclude'],
  ['ADD --exclude', 'COPY --exclude'],
  ['ADD --checksum', 'ADD --checksum'],
  ['ADD --keep-git-dir', 'ADD --keep-git-dir'],
  ['ADD --unpack', 'ADD --unpack'],
]);

/** An engine refuses a flag it does not know whatever its value, so `--link=false` is one too. */
export function featureOf(keyword: string, flag: ReadFlag): DockerfileFeature | undefined {
  return FLAG_FEATURES.get(`${keyword} --${flag.name}`);
}

/** What a flag takes: a value, or a value that may be left out (then it means true). */
type FlagKind = 'value' | 'switch';

/** The flags of each instruction (Dockerfile reference, syntax 1 with its labs additions). */
const FLAGS: Readonly<Record<string, Readonly<Record<string, FlagKind>>>> = {
  FROM: { platform: 'value' },
  RUN: { mount: 'value', network: 'value', security: 'value', device: 'value' },
  COPY: { from: 'value', chown: 'value', chmod: 'value', link: 'switch', parents: 'switch', exclude: 'value' },
  ADD: {
    chown: 'value',
    chmod: 'value',
    link: 'switch',
    checksum: 'value',
    'keep-git-dir': 'switch',
    exclude: 'value',
    unpack: 'switch',
  },
  HEALTHCHECK: {
    interval: 'value',
    timeout: 'value',
    'start-period': 'value',
    'start-interval': 'value',
    retries: 'value',
  },
};

export interface ReadFlag {
  readonly name: string;
  readonly value: string;
}

/** The flags at the front of an instruction's words, or why they are wrong. A bare `--` ends them. */
export function readFlags(keyword: string, words: readonly string[]): { flags: ReadFlag[]; rest: string[] } | string {
  const known = FLAGS[keyword] ?? {};
  const flags: ReadFlag[] = [];
  let at = 0;
  for (; at < words.length && words[at]!.startsWith('--'); at++) {
    const word = words[at]!;
    if (word === '--') return { flags, rest: words.slice(at + 1) };
    const equals = word.indexOf('=');
    const name = word.slice(2, equals < 0 ? undefined : equals);
    const kind = Object.hasOwn(known, name) ? known[name] : undefined;
    if (kind === undefined) return `the flag --${name} is unknown`;
    if (equals < 0 && kind === 'value') return `the flag --${name} needs a value`;
    const value = equals < 0 ? 'true' : word.slice(equals + 1);
    if (kind === 'switch' && !/^(?:true|false)$/i.test(value)) return `the flag --${name} is neither true nor false`;
    flags.push({ name, value });
  }
  return { flags, rest: words.slice(at) };
}

/** A `--mount` of RUN. */
interface ReadMount {
  readonly type: string;
  readonly options: ReadonlyMap<string, string>;
}

const MOUNT_TYPES = new Set(['bind', 'cache', 'tmpfs', 'secret', 'ssh']);

/** The options of a `--mount`, or why they are wrong. */
export function readMount(value: string): ReadMount | string {
  const options = new Map<string, string>();
  for (const part of splitFields(value)) {
    const equals = part.indexOf('=');
    options.set(
      (equals < 0 ? part : part.slice(0, equals)).toLowerCase(),
      equals < 0 ? 'true' : part.slice(equals + 1),
    );
  }
  const type = (options.get('type') ?? 'bind').toLowerCase();
  return MOUNT_TYPES.has(type) ? { type, options } : `the mount type ${type} is unknown`;
}

/** Comma-separated fields, in which a field may stand in double quotes (RFC 4180). */
function splitFields(text: string): string[] {
  const fields = text.match(/(?:"(?:[^"]|"")*"|[^,])+/g) ?? [];
  return fields.map((field) => (/^".*"$/s.test(field) ? field.slice(1, -1).replaceAll('""', '"') : field));
}
