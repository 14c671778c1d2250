import { quote } from '@decant/core';

import { readDirectives } from './directives.ts';
import { dockerfileInvalid } from './dockerfile-invalid.ts';
import { featureOf, readFlags, type DockerfileFeature, type ReadFlag } from './flags.ts';
import { readInstructions, type Instruction } from './instructions.ts';

/** An instruction with its flags apart; that of ONBUILD keeps those of its trigger among its words. */
export interface ParsedInstruction {
  readonly keyword: string;
  readonly flags: readonly ReadFlag[];
  /** At least one. */
  readonly words: readonly string[];
  readonly line: number;
}

/** What a Dockerfile says before any variable is replaced. */
export interface ParsedDockerfile {
  readonly syntax: string | null;
  readonly escape: string;
  readonly instructions: readonly ParsedInstruction[];
  readonly features: ReadonlyMap<DockerfileFeature, number>;
}

const KEYWORDS = new Set(
  (
    'ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER ' +
    'VOLUME WORKDIR'
  ).split(' '),
);

/** Largest Dockerfile that is read: bytes, or UTF-16 code units of a string. */
const LARGEST = 4 * 1024 * 1024;

export function parseDockerfile(source: string | Uint8Array, file: string): ParsedDockerfile {
  if (source.length > LARGEST) throw dockerfileInvalid(file, 1, 'the file is larger than 4 MiB');
  const text = typeof source === 'string' ? source : new TextDecoder().decode(source);
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/);
  const directives = readDirectives(lines);
  const syntax = directives.find(({ name }) => name === 'syntax')?.value ?? null;
  const escaping = directives.find(({ name }) => name === 'escape');
  const escape = escaping?.value ?? '\\';
  if (escape !== '\\' && escape !== '`') {
    const fault = `the escape character is ${quote(escape)} and can only be \\ or a backtick`;
    throw dockerfileInvalid(file, escaping!.line, fault);
  }
  const instructions: ParsedInstruction[] = [];
  const features = new Map<DockerfileFeature, number>();
  for (const instruction of readInstructions(lines, escape, file)) {
    const parsed = parseInstruction(instruction, file);
    instructions.push(parsed);
    const used = parsed.flags.map((flag) => featureOf(parsed.keyword, flag));
    for (const feature of [...used, instruction.heredoc ? ('heredoc' as const) : undefined]) {
      if (feature !== undefined && !features.has(feature)) features.set(feature, instruction.line);
    }
  }
  if (instructions.length === 0) throw dockerfileInvalid(file, 1, 'the file has no instructions');
  if (!instructions.some(({ keyword }) => keyword === 'FROM')) {
    throw dockerfileInvalid(file, instructions[0]!.line, 'there is no FROM');
  }
  return { syntax, escape, instructions, features };
}

function parseInstruction({ keyword, words, line }: Instruction, file: string): ParsedInstruction {
  if (!KEYWORDS.has(keyword)) throw dockerfileInvalid(file, line, `the instruction ${quote(keyword)} is unknown`);
  if (keyword === 'ONBUILD') {
    const trigger = words[0]?.toUpperCase();
    if (trigger === undefined) throw dockerfileInvalid(file, line, 'ONBUILD needs an instruction');
    if (!KEYWORDS.has(trigger)) throw dockerfileInvalid(file, line, `the instruction ${quote(trigger)} is unknown`);
    if (trigger === 'FROM' || trigger === 'ONBUILD' || trigger === 'MAINTAINER') {
      throw dockerfileInvalid(file, line, `${trigger} cannot be triggered by ONBUILD`);
    }
    return { keyword, flags: [], words, line };
  }
  const read = readFlags(keyword, words);
  if (typeof read === 'string') throw dockerfileInvalid(file, line, `${keyword}: ${read}`);
  if (read.rest.length === 0) throw dockerfileInvalid(file, line, `${keyword} needs an argument`);
  return { keyword, flags: read.flags, words: read.rest, line };
}

/**
 * The parts of the language that a Dockerfile uses and that not every engine has, with the line (from 1) of each
 * first use, in whatever stage: engines read all of the file even when they skip stages. No variable is replaced,
 * so this needs no build arguments.
 * @throws DOCKERFILE_INVALID with `details.file` and `details.line`.
 */
export function readDockerfileFeatures(
  source: string | Uint8Array,
  options: { readonly fileName?: string | undefined } = {},
): ReadonlyMap<DockerfileFeature, number> {
  return parseDockerfile(source, options.fileName ?? 'Dockerfile').features;
}
