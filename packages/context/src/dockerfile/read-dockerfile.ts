import { DecantError, quote } from '@decant/core';
import { DockerfileParser, type Instruction } from 'dockerfile-ast';

import { readFlags, readMount, type ReadFlag } from './flags.ts';
import { expandWord, VariableFault, type Variables } from './variables.ts';
import { logicalLine, splitWords } from './words.ts';

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

export interface DockerfileStage {
  readonly index: number;
  /** Lower case, as stages are looked up, or null. */
  readonly name: string | null;
  /** What FROM names, with its variables replaced. */
  readonly base: string;
  /** Index of the earlier stage that `base` names, or null. */
  readonly baseStage: number | null;
  /** Of `FROM --platform`, with its variables replaced, or null. */
  readonly platform: string | null;
  /** Line of FROM, from 1. */
  readonly line: number;
}

/** What a builder must be able to do. Lists are without repetitions, in the order of the file. */
export interface DockerfileRequirements {
  /** The front end named by `# syntax=`, or null. */
  readonly syntax: string | null;
  /** RUN, COPY or ADD with `<<`. */
  readonly heredoc: boolean;
  /** Ids of secrets. */
  readonly secrets: readonly string[];
  /** Those of them without which the step is to fail. */
  readonly requiredSecrets: readonly string[];
  readonly cacheMounts: boolean;
  readonly bindMounts: boolean;
  readonly tmpfsMounts: boolean;
  readonly sshMounts: boolean;
  readonly copyLink: boolean;
  readonly copyChmod: boolean;
  readonly copyParents: boolean;
  readonly copyExclude: boolean;
  readonly addChecksum: boolean;
  /** Values of `RUN --network`. */
  readonly networks: readonly string[];
  /** `RUN --security=insecure`. */
  readonly insecure: boolean;
  /** Of `FROM --platform`. */
  readonly platforms: readonly string[];
  /** Images from outside: bases, and sources of COPY and mounts that are not stages. */
  readonly externalImages: readonly string[];
  readonly stages: readonly DockerfileStage[];
}

export interface DockerfileInfo {
  readonly requirements: DockerfileRequirements;
  /** The stages in order; the last is built unless another is asked for. */
  readonly stages: readonly DockerfileStage[];
  /** The character that continues lines: `\` or a backtick. */
  readonly escape: string;
}

const KEYWORDS = new Set(
  (
    'ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER ' +
    'VOLUME WORKDIR'
  ).split(' '),
);

/** A word that opens a here-document (`<<EOF`, `<<-EOF`, `3<<'EOF'`), but not a here-string (`<<<`). */
const HEREDOC = /^\d*<<-?[^<]+$/;

/** Largest Dockerfile that is read, in UTF-16 code units. */
const LARGEST = 4 * 1024 * 1024;

/**
 * Reads what a Dockerfile builds on and what it asks of a builder, without building it.
 * @throws DOCKERFILE_INVALID with `details.file` and `details.line`: no FROM, an unknown instruction, a wrong flag.
 */
export function readDockerfile(text: string | Uint8Array, options: ReadDockerfileOptions = {}): DockerfileInfo {
  const source = typeof text === 'string' ? text : new TextDecoder().decode(text);
  return new Evaluation(source.replace(/^\uFEFF/, ''), options).run();
}

class Evaluation {
  readonly #source: string;
  readonly #fileName: string;
  readonly #options: ReadDockerfileOptions;
  #escape = '\\';
  /** ARG before the first FROM. */
  readonly #global = new Map<string, string | undefined>();
  /** ARG and ENV of the current stage, and of all that are finished. */
  #local = new Map<string, string | undefined>();
  readonly #finished: Variables[] = [];
  readonly #stages: DockerfileStage[] = [];
  readonly #found = {
    heredoc: false,
    cacheMounts: false,
    bindMounts: false,
    tmpfsMounts: false,
    sshMounts: false,
    copyLink: false,
    copyChmod: false,
    copyParents: false,
    copyExclude: false,
    addChecksum: false,
    insecure: false,
  };
  readonly #secrets = new Set<string>();
  readonly #requiredSecrets = new Set<string>();
  readonly #networks = new Set<string>();
  readonly #platforms = new Set<string>();
  readonly #images = new Set<string>();

  constructor(source: string, options: ReadDockerfileOptions) {
    this.#source = source;
    this.#options = options;
    this.#fileName = options.fileName ?? 'Dockerfile';
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
    if (this.#source.length > LARGEST) throw this.#invalid(1, `the file is over ${LARGEST} characters`);
    const parsed = DockerfileParser.parse(this.#source);
    let syntax: string | null = null;
    for (const directive of parsed.getDirectives()) {
      const name = directive.getName().toLowerCase();
      const value = directive.getValue();
      const line = directive.getRange().start.line + 1;
      if (name === 'escape' && value !== '\\' && value !== '`') {
        throw this.#invalid(line, `the escape character is ${quote(value)} and can only be \\ or a backtick`);
      }
      if (name === 'syntax') syntax ??= value;
    }
    this.#escape = parsed.getEscapeCharacter();
    const instructions = parsed.getInstructions();
    if (instructions.length === 0) throw this.#invalid(1, 'the file has no instructions');
    for (const instruction of instructions) this.#take(instruction);
    if (this.#stages.length === 0) throw this.#invalid(lineOf(instructions[0]!), 'there is no FROM');
    return {
      requirements: {
        syntax,
        ...this.#found,
        secrets: [...this.#secrets],
        requiredSecrets: [...this.#requiredSecrets],
        networks: [...this.#networks],
        platforms: [...this.#platforms],
        externalImages: [...this.#images],
        stages: this.#stages,
      },
      stages: this.#stages,
      escape: this.#escape,
    };
  }

  #take(instruction: Instruction): void {
    const line = lineOf(instruction);
    const keyword = instruction.getKeyword();
    if (!KEYWORDS.has(keyword)) throw this.#invalid(line, `the instruction ${quote(keyword)} is unknown`);
    const words = splitWords(logicalLine(instruction.getTextContent(), this.#escape), this.#escape).slice(1);
    if (keyword === 'ONBUILD') {
      const trigger = words[0]?.toUpperCase();
      if (trigger === undefined) throw this.#invalid(line, 'ONBUILD needs an instruction');
      if (!KEYWORDS.has(trigger)) throw this.#invalid(line, `the instruction ${quote(trigger)} is unknown`);
      if (trigger === 'FROM' || trigger === 'ONBUILD' || trigger === 'MAINTAINER') {
        throw this.#invalid(line, `${trigger} cannot be triggered by ONBUILD`);
      }
      return;
    }
    const read = readFlags(keyword, words);
    if (typeof read === 'string') throw this.#invalid(line, `${keyword}: ${read}`);
    const { flags, rest } = read;
    if (rest.length === 0) throw this.#invalid(line, `${keyword} needs an argument`);
    if (keyword === 'FROM') this.#from(flags, rest, line);
    else if (keyword === 'ARG') this.#args(rest, line);
    else if (this.#stages.length === 0) throw this.#invalid(line, `${keyword} stands before the first FROM`);
    else if (keyword === 'ENV') this.#env(rest, line);
    else if (keyword === 'RUN') this.#run(flags, line);
    else if (keyword === 'COPY' || keyword === 'ADD') this.#copy(flags, rest, keyword, line);
    if (keyword === 'RUN' || keyword === 'COPY' || keyword === 'ADD') {
      this.#found.heredoc ||= rest.some((word) => HEREDOC.test(word));
    }
  }

  #from(flags: readonly ReadFlag[], rest: readonly string[], line: number): void {
    if (rest.length !== 1 && !(rest.length === 3 && rest[1]!.toUpperCase() === 'AS')) {
      throw this.#invalid(line, 'FROM takes an image and, after AS, a name');
    }
    const name = rest[2]?.toLowerCase() ?? null;
    if (name !== null && !/^[a-z][a-z0-9_.-]*$/.test(name)) {
      throw this.#invalid(line, `${quote(rest[2]!)} is no name for a stage`);
    }
    const base = this.#expand(rest[0]!, this.#global, line);
    if (base === '') throw this.#invalid(line, `the image ${quote(rest[0]!)} of FROM is empty`);
    const baseStage = this.#stageNamed(base);
    const given = flags.find((flag) => flag.name === 'platform')?.value;
    const platform = given === undefined ? null : this.#expand(given, this.#global, line);
    if (platform === '') throw this.#invalid(line, `the platform ${quote(given!)} of FROM is empty`);
    if (platform !== null) this.#platforms.add(platform);
    if (baseStage === null && base !== 'scratch') this.#images.add(base);
    if (this.#stages.length > 0) this.#finished.push(this.#local);
    // A stage on top of another has its environment.
    this.#local = new Map(baseStage === null ? [] : this.#finished[baseStage]);
    this.#stages.push({ index: this.#stages.length, name, base, baseStage, platform, line });
  }

  #args(rest: readonly string[], line: number): void {
    const scope = this.#stages.length === 0 ? this.#global : this.#local;
    for (const word of rest) {
      const equals = word.indexOf('=');
      const name = this.#expand(equals < 0 ? word : word.slice(0, equals), scope, line);
      if (name === '') throw this.#invalid(line, 'ARG has a value without a name');
      const given = this.#options.buildArgs;
      const value = equals < 0 ? undefined : this.#expand(word.slice(equals + 1), scope, line);
      const inherited = scope === this.#local ? this.#global.get(name) : undefined;
      const predefined = scope === this.#global ? this.#global.get(name) : undefined;
      scope.set(
        name,
        given !== undefined && Object.hasOwn(given, name) ? given[name] : (value ?? inherited ?? predefined),
      );
    }
  }

  #env(rest: readonly string[], line: number): void {
    // The old form `ENV NAME the rest of the line`.
    const pairs = rest[0]!.includes('=') ? rest : [`${rest[0]}=${rest.slice(1).join(' ')}`];
    const before = new Map(this.#local);
    for (const pair of pairs) {
      const equals = pair.indexOf('=');
      if (equals <= 0) throw this.#invalid(line, `ENV has ${quote(pair)}, which is not NAME=VALUE`);
      this.#local.set(pair.slice(0, equals), this.#expand(pair.slice(equals + 1), before, line));
    }
  }

  #run(flags: readonly ReadFlag[], line: number): void {
    for (const { name, value } of flags) {
      if (name === 'network') this.#networks.add(value);
      if (name === 'security' && value === 'insecure') this.#found.insecure = true;
      if (name !== 'mount') continue;
      const mount = readMount(value);
      if (typeof mount === 'string') throw this.#invalid(line, `RUN: ${mount}`);
      const { type, options } = mount;
      if (type === 'secret') this.#secret(options, line);
      if (type === 'cache') this.#found.cacheMounts = true;
      if (type === 'bind') this.#found.bindMounts = true;
      if (type === 'tmpfs') this.#found.tmpfsMounts = true;
      if (type === 'ssh') this.#found.sshMounts = true;
      const from = options.get('from');
      if (from !== undefined) this.#fileSource(from, line);
    }
  }

  #secret(options: ReadonlyMap<string, string>, line: number): void {
    const target = options.get('target') ?? options.get('dst') ?? options.get('destination');
    const given = options.get('id') ?? options.get('source') ?? options.get('src') ?? target?.split('/').at(-1);
    const id = given === undefined ? '' : this.#expand(given, this.#local, line);
    if (id === '') throw this.#invalid(line, 'RUN: a secret mount needs an id or a target');
    this.#secrets.add(id);
    if (options.get('required')?.toLowerCase() === 'true') this.#requiredSecrets.add(id);
  }

  #copy(flags: readonly ReadFlag[], rest: readonly string[], keyword: string, line: number): void {
    if (rest.length < 2 && !rest[0]!.startsWith('[')) {
      throw this.#invalid(line, `${keyword} needs at least one source and a destination`);
    }
    const on = (name: string) => flags.some((flag) => flag.name === name && flag.value.toLowerCase() !== 'false');
    this.#found.copyLink ||= on('link');
    this.#found.copyChmod ||= on('chmod');
    this.#found.copyParents ||= on('parents');
    this.#found.copyExclude ||= on('exclude');
    this.#found.addChecksum ||= on('checksum');
    const from = flags.find((flag) => flag.name === 'from')?.value;
    if (from !== undefined) this.#fileSource(from, line);
  }

  /** A stage or an image that files come from; builders do not replace variables here. */
  #fileSource(from: string, line: number): void {
    if (from === '') throw this.#invalid(line, 'a from= names nothing');
    if (from.includes('$'))
      throw this.#invalid(line, `the variable in from=${from} is not replaced; give it a stage of its own`);
    if (/^\d+$/.test(from)) {
      if (Number(from) >= this.#stages.length - 1) throw this.#invalid(line, `there is no earlier stage ${from}`);
      return;
    }
    if (this.#stageNamed(from) === null) this.#images.add(from);
  }

  /** The latest finished or current stage of that name. */
  #stageNamed(name: string): number | null {
    return this.#stages.findLast((stage) => stage.name === name.toLowerCase())?.index ?? null;
  }

  #expand(word: string, variables: Variables, line: number): string {
    try {
      return expandWord(word, variables, this.#escape);
    } catch (error) {
      if (!(error instanceof VariableFault)) throw error;
      throw this.#invalid(line, `${quote(word)} cannot be evaluated: ${error.message}`);
    }
  }

  #invalid(line: number, fault: string): DecantError {
    return new DecantError('DOCKERFILE_INVALID', `${this.#fileName}, line ${line}: ${fault}.`, {
      details: { file: this.#fileName, line },
    });
  }
}

function lineOf(instruction: Instruction): number {
  return instruction.getRange().start.line + 1;
}
