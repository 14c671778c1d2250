import { DecantError } from '@decant/core';

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

/** What a Dockerfile asks of an engine, with the line (from 1) of each first use. */
export interface DockerfileNeeds {
  /** Value of `# syntax=`. */
  readonly syntax: string | undefined;
  readonly features: ReadonlyMap<DockerfileFeature, number>;
  readonly stages: readonly { readonly name: string | undefined; readonly line: number }[];
  /** Names declared by ARG anywhere. */
  readonly args: ReadonlySet<string>;
  /** Ids of `RUN --mount=type=secret`. */
  readonly secrets: ReadonlyMap<string, number>;
  /** `FROM --platform=` values, as written. */
  readonly platforms: ReadonlyMap<string, number>;
}

const LARGEST_DOCKERFILE = 4 * 1024 * 1024;
const DIRECTIVE = /^#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$/;
const HEREDOC = /<<(-?)(["']?)([A-Za-z_][A-Za-z0-9_]*)\2/g;

const FLAG_FEATURES: Readonly<Record<string, DockerfileFeature>> = {
  'RUN --mount': 'RUN --mount',
  'RUN --network': 'RUN --network',
  'RUN --security': 'RUN --security',
  'RUN --device': 'RUN --device',
  'COPY --chmod': 'COPY --chmod',
  'ADD --chmod': 'COPY --chmod',
  'COPY --link': 'COPY --link',
  'ADD --link': 'COPY --link',
  'COPY --parents': 'COPY --parents',
  'COPY --exclude': 'COPY --exclude',
  'ADD --exclude': 'COPY --exclude',
  'ADD --checksum': 'ADD --checksum',
  'ADD --keep-git-dir': 'ADD --keep-git-dir',
  'ADD --unpack': 'ADD --unpack',
};

/**
 * Reads only what decides whether an engine can build this Dockerfile; whether it is valid otherwise the engine says.
 * @throws DOCKERFILE_INVALID when it is larger than 4 MiB or has no FROM.
 */
export function readNeeds(dockerfile: { readonly displayPath: string; readonly bytes: Uint8Array }): DockerfileNeeds {
  if (dockerfile.bytes.length > LARGEST_DOCKERFILE) {
    throw new DecantError('DOCKERFILE_INVALID', `${dockerfile.displayPath} is larger than 4 MiB.`);
  }
  const lines = textOf(dockerfile.bytes).split(/\r?\n/);
  const directives = readDirectives(lines);
  const features = new Map<DockerfileFeature, number>();
  const secrets = new Map<string, number>();
  const platforms = new Map<string, number>();
  const stages: { name: string | undefined; line: number }[] = [];
  const args = new Set<string>();
  const first = <K>(map: Map<K, number>, key: K, line: number) => {
    if (!map.has(key)) map.set(key, line);
  };
  for (const { keyword, rest, line, heredoc } of instructions(lines, directives.escape)) {
    if (heredoc) first(features, 'heredoc', line);
    const words = rest.split(/\s+/).filter((word) => word !== '');
    while (words[0]?.startsWith('--') === true) {
      const flag = words.shift()!;
      const [name, value] = splitOnce(flag, '=');
      const feature = FLAG_FEATURES[`${keyword} ${name}`];
      if (feature !== undefined) first(features, feature, line);
      if (keyword === 'FROM' && name === '--platform') first(platforms, value, line);
      if (feature === 'RUN --mount') {
        const secret = secretOf(value);
        if (secret !== undefined) first(secrets, secret, line);
      }
    }
    if (keyword === 'FROM') stages.push({ name: words[1]?.toUpperCase() === 'AS' ? words[2] : undefined, line });
    if (keyword === 'ARG') for (const word of words) args.add(splitOnce(word, '=')[0]);
  }
  if (stages.length === 0) {
    throw new DecantError('DOCKERFILE_INVALID', `${dockerfile.displayPath} has no FROM instruction.`);
  }
  return { syntax: directives.syntax, features, stages, args, secrets, platforms };
}

/**
 * The Dockerfile without its `# syntax=` line, so that the engine's own front end reads it. The other directives
 * must stay first (any comment ends them), so a comment after them keeps the number of lines.
 */
export function withoutSyntaxLine(bytes: Uint8Array): Uint8Array {
  const lines = textOf(bytes).split('\n');
  const { count } = readDirectives(lines.map((line) => line.replace(/\r$/, '')));
  const isSyntax = (line: string) => DIRECTIVE.exec(line.trim())?.[1]?.toLowerCase() === 'syntax';
  const head = lines.slice(0, count);
  const kept = head.filter((line) => !isSyntax(line));
  const filler = Array.from({ length: head.length - kept.length }, () => '#');
  return new TextEncoder().encode([...kept, ...filler, ...lines.slice(count)].join('\n'));
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder('utf-8').decode(bytes);
}

function readDirectives(lines: readonly string[]) {
  let syntax: string | undefined;
  let escape = '\\';
  let count = 0;
  for (const line of lines) {
    const match = DIRECTIVE.exec(line.trim());
    if (match === null) break;
    const name = match[1]!.toLowerCase();
    if (name === 'syntax') syntax = match[2]!;
    else if (name === 'escape') escape = match[2]!;
    else if (name !== 'check') break;
    count++;
  }
  return { syntax, escape, count };
}

interface Instruction {
  readonly keyword: string;
  readonly rest: string;
  readonly line: number;
  readonly heredoc: boolean;
}

/** Logical lines: comments and empty lines dropped, continuations joined, bodies of here-documents skipped. */
function* instructions(lines: readonly string[], escape: string): Generator<Instruction> {
  for (let index = 0; index < lines.length; index++) {
    const start = index;
    let text = lines[index]!.trim();
    if (text === '' || text.startsWith('#')) continue;
    const parts: string[] = [];
    while (text.endsWith(escape) && index + 1 < lines.length) {
      parts.push(text.slice(0, -escape.length));
      do text = lines[++index]!.trim();
      while ((text === '' || text.startsWith('#')) && index + 1 < lines.length);
    }
    parts.push(text);
    const [keyword, rest] = splitOnce(parts.join(' ').replace(/\t/g, ' '), ' ');
    const word = keyword.toUpperCase();
    const mayHaveHeredoc = word === 'RUN' || word === 'COPY' || word === 'ADD';
    const heredocs = mayHaveHeredoc ? [...rest.matchAll(HEREDOC)].filter((match) => isHeredoc(rest, match.index)) : [];
    let ended = true;
    const bodyStart = index;
    for (const [, dash, , terminator] of heredocs) {
      const ends = (line: string) => (dash === '-' ? line.replace(/^\t+/, '') : line) === terminator;
      const end = lines.findIndex((line, at) => at > index && ends(line));
      if (end < 0) ended = false;
      else index = end;
    }
    // Without its end it is a shell's own here-document or not one at all.
    if (!ended) index = bodyStart;
    yield { keyword: word, rest: rest.trim(), line: start + 1, heredoc: heredocs.length > 0 && ended };
  }
}

/** `<<<` is a here-string, and `1<<A` inside quotes or arithmetic is a shift. */
function isHeredoc(text: string, at: number): boolean {
  return text[at - 1] !== '<' && text[at - 1] !== '(' && !/[A-Za-z0-9_)$]/.test(text[at - 1] ?? ' ');
}

function secretOf(mount: string): string | undefined {
  const fields = new Map(mount.split(',').map((field) => splitOnce(field, '=')));
  if (fields.get('type') !== 'secret') return undefined;
  const target = fields.get('target') ?? fields.get('dst') ?? fields.get('destination');
  return fields.get('id') ?? target?.split('/').at(-1);
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)];
}
