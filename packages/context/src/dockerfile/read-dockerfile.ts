import { quote } from '@decant/core';

import { dockerfileInvalid } from './dockerfile-invalid.ts';
import { readMount, type DockerfileFeature, type ReadFlag } from './flags.ts';
import { parseDockerfile, type ParsedDockerfile, type ParsedInstruction } from './parse-dockerfile.ts';
import { StageScope } from './stage-scope.ts';
import type { DockerfileSecret, DockerfileStage } from './stages.ts';
import { expandWord, VariableFault, type Variables } from './variables.ts';

export interface ReadDockerfileOptions {
  /** What messages call the file; default `Dockerfile`. */
  readonly fileName?: string | undefined;
  /** Values for ARG, as `--build-arg` gives them. */
  readonly buildArgs?: Readonly<Record<string, string>> | undefined;
  /** The platform built for, as `OS/ARCHITECTURE[/VARIANT]`; default `linux/amd64`. */
  readonly platform?: string | undefined;
  /** The platform built on; default that built for. */
  readonly buildPlatform?: string | undefined;
}

export interface DockerfileInfo {
  /** The front end named by `# syntax=`, or null. */
  readonly syntax: string | null;
  /** The character that continues lines: `\` or a backtick. */
  readonly escape: string;
  /** Parts of the language that not every engine has, with the line (from 1) of each first use in whatever stage. */
  readonly features: ReadonlyMap<DockerfileFeature, number>;
  /** Names that some ARG declares, in whatever stage. */
  readonly args: ReadonlySet<string>;
  /** The stages in order; the last is built unless another is asked for. */
  readonly stages: readonly DockerfileStage[];
}

/** Most stages that are read; each keeps the variables of those below it. */
const MOST_STAGES = 1000;

/**
 * Reads what a Dockerfile builds on and what it asks of a builder, without building it.
 * @throws DOCKERFILE_INVALID with `details.file` and `details.line`: no FROM, an unknown instruction, a wrong flag,
 * over 4 MiB or 1000 stages.
 */
export function readDockerfile(source: string | Uint8Array, options: ReadDockerfileOptions = {}): DockerfileInfo {
  const file = options.fileName ?? 'Dockerfile';
  return new Evaluation(parseDockerfile(source, file), file, options).run();
}

/** A stage that is being read. */
interface OpenStage {
  readonly from: Omit<DockerfileStage, 'stagesUsed' | 'externalImages' | 'secrets'>;
  readonly variables: StageScope;
  readonly used: Set<number>;
  readonly images: Set<string>;
  readonly mounted: Map<string, DockerfileSecret>;
}

class Evaluation {
  readonly #parsed: ParsedDockerfile;
  readonly #file: string;
  readonly #buildArgs: ReadonlyMap<string, string>;
  /** ARG before the first FROM. */
  readonly #global = new Map<string, string | undefined>();
  readonly #args = new Set<string>();
  readonly #stages: OpenStage[] = [];
  readonly #byName = new Map<string, number>();

  constructor(parsed: ParsedDockerfile, file: string, options: ReadDockerfileOptions) {
    this.#parsed = parsed;
    this.#file = file;
    this.#buildArgs = new Map(Object.entries(options.buildArgs ?? {}));
    const platform = options.platform ?? 'linux/amd64';
    for (const [prefix, value] of [
      ['TARGET', platform],
      ['BUILD', options.buildPlatform ?? platform],
    ] as const) {
      const [os, architecture, variant] = value.split('/');
      this.#global.set(`${prefix}PLATFORM`, value);
      this.#global.set(`${prefix}OS`, os ?? '');
      this.#global.set(`${prefix}ARCH`, architecture ?? '');
      this.#global.set(`${prefix}VARIANT`, variant ?? '');
    }
  }

  run(): DockerfileInfo {
    const { instructions, ...told } = this.#parsed;
    for (const instruction of instructions) this.#take(instruction);
    const stages = this.#stages.map(({ from, used, images, mounted }) => ({
      ...from,
      stagesUsed: [...used],
      externalImages: [...images],
      secrets: [...mounted.values()],
    }));
    return { ...told, args: this.#args, stages };
  }

  #take({ keyword, flags, words, line }: ParsedInstruction): void {
    const stage = this.#stages.at(-1);
    if (keyword === 'FROM') this.#from(flags, words, line);
    else if (keyword === 'ARG') this.#arg(stage, words, line);
    else if (stage === undefined) throw this.#invalid(line, `${keyword} stands before the first FROM`);
    else if (keyword === 'ENV') this.#env(stage, words, line);
    else if (keyword === 'RUN') this.#run(stage, flags, line);
    else if (keyword === 'COPY' || keyword === 'ADD') this.#copy(stage, flags, words, keyword, line);
  }

  #from(flags: readonly ReadFlag[], words: readonly string[], line: number): void {
    if (words.length !== 1 && !(words.length === 3 && words[1]!.toUpperCase() === 'AS')) {
      throw this.#invalid(line, 'FROM takes an image and, after AS, a name');
    }
    const name = words[2]?.toLowerCase() ?? null;
    if (name !== null && !/^[a-z][a-z0-9_.-]*$/.test(name)) {
      throw this.#invalid(line, `${quote(words[2]!)} is no name for a stage`);
    }
    const index = this.#stages.length;
    if (index === MOST_STAGES) throw this.#invalid(line, `there are more than ${MOST_STAGES} stages`);
    const base = this.#expand(words[0]!, this.#global, line);
    if (base === '') throw this.#invalid(line, `the image ${quote(words[0]!)} of FROM is empty`);
    const baseStage = this.#byName.get(base.toLowerCase()) ?? null;
    const given = flags.find((flag) => flag.name === 'platform')?.value;
    const platform = given === undefined ? null : this.#expand(given, this.#global, line);
    if (platform === '') throw this.#invalid(line, `the platform ${quote(given!)} of FROM is empty`);
    // A stage on top of another has its environment.
    const variables = new StageScope(baseStage === null ? undefined : this.#stages[baseStage]!.variables);
    const used = new Set(baseStage === null ? [] : [baseStage]);
    const images = new Set(baseStage === null && base !== 'scratch' ? [base] : []);
    const from = { index, name, base, baseStage, platform, line };
    this.#stages.push({ from, variables, used, images, mounted: new Map() });
    if (name !== null) this.#byName.set(name, index);
  }

  #arg(stage: OpenStage | undefined, words: readonly string[], line: number): void {
    const scope = stage?.variables ?? this.#global;
    for (const word of words) {
      const equals = word.indexOf('=');
      const name = this.#expand(equals < 0 ? word : word.slice(0, equals), scope, line);
      if (name === '') throw this.#invalid(line, 'ARG has a value without a name');
      this.#args.add(name);
      const value = equals < 0 ? undefined : this.#expand(word.slice(equals + 1), scope, line);
      scope.set(name, this.#buildArgs.get(name) ?? value ?? this.#global.get(name));
    }
  }

  #env(stage: OpenStage, words: readonly string[], line: number): void {
    // The old form `ENV NAME the rest of the line`.
    const pairs = words[0]!.includes('=') ? words : [`${words[0]}=${words.slice(1).join(' ')}`];
    const values = pairs.map((pair): [string, string] => {
      const equals = pair.indexOf('=');
      if (equals <= 0) throw this.#invalid(line, `ENV has ${quote(pair)}, which is not NAME=VALUE`);
      return [pair.slice(0, equals), this.#expand(pair.slice(equals + 1), stage.variables, line)];
    });
    for (const [name, value] of values) stage.variables.set(name, value);
  }

  #run(stage: OpenStage, flags: readonly ReadFlag[], line: number): void {
    for (const { name, value } of flags) {
      if (name !== 'mount') continue;
      const mount = readMount(value);
      if (typeof mount === 'string') throw this.#invalid(line, `RUN: ${mount}`);
      const { type, options } = mount;
      if (type === 'secret') this.#secret(stage, options, line);
      const from = options.get('from');
      if (from !== undefined) this.#fileSource(stage, from, line);
    }
  }

  #secret(stage: OpenStage, options: ReadonlyMap<string, string>, line: number): void {
    const target = options.get('target') ?? options.get('dst') ?? options.get('destination');
    const given = options.get('id') ?? options.get('source') ?? options.get('src') ?? target?.split('/').at(-1);
    const id = given === undefined ? '' : this.#expand(given, stage.variables, line);
    if (id === '') throw this.#invalid(line, 'RUN: a secret mount needs an id or a target');
    const before = stage.mounted.get(id);
    const required = options.get('required')?.toLowerCase() === 'true' || before?.required === true;
    stage.mounted.set(id, { id, line: before?.line ?? line, required });
  }

  #copy(stage: OpenStage, flags: readonly ReadFlag[], words: readonly string[], keyword: string, line: number): void {
    if (words.length < 2 && !words[0]!.startsWith('[')) {
      throw this.#invalid(line, `${keyword} needs at least one source and a destination`);
    }
    const from = flags.find((flag) => flag.name === 'from')?.value;
    if (from !== undefined) this.#fileSource(stage, from, line);
  }

  /** A stage or an image that files come from; builders do not replace variables here. */
  #fileSource(stage: OpenStage, from: string, line: number): void {
    if (from === '') throw this.#invalid(line, 'a from= names nothing');
    if (from.includes('$'))
      throw this.#invalid(line, `the variable in from=${from} is not replaced; give it a stage of its own`);
    const isIndex = /^\d+$/.test(from);
    if (isIndex && Number(from) >= stage.from.index) throw this.#invalid(line, `there is no earlier stage ${from}`);
    const source = isIndex ? Number(from) : this.#byName.get(from.toLowerCase());
    if (source === undefined) stage.images.add(from);
    else if (source !== stage.from.index) stage.used.add(source);
  }

  #expand(word: string, variables: Variables, line: number): string {
    try {
      return expandWord(word, variables, this.#parsed.escape);
    } catch (error) {
      if (!(error instanceof VariableFault)) throw error;
      throw this.#invalid(line, `${quote(word)} cannot be evaluated: ${error.message}`);
    }
  }

  #invalid(line: number, fault: string) {
    return dockerfileInvalid(this.#file, line, fault);
  }
}
