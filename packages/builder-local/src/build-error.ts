import { DecantError, type ErrorCode } from '@decant/core';

import type { FailureReport } from './output/reader.ts';
import { maskText } from './secrets.ts';

const LONGEST_COMMAND = 160;

/** What registries and engines say to a login that is missing or wrong. */
const NOT_AUTHORISED =
  /\b401\b|\bunauthorized\b|authentication required|no basic auth credentials|invalid username\/password|incorrect username or password/i;

const NO_SPACE = /no space left on device|disk quota exceeded/i;

/** The report without the secrets of the build. */
export function withoutSecrets(report: FailureReport, masked: readonly string[]): FailureReport {
  const clean = (text: string) => maskText(text, masked);
  return { ...report, reason: clean(report.reason), lastLines: report.lastLines.map(clean) };
}

/** The registry that a reference names. */
export function registryOf(reference: string): string {
  const slash = reference.indexOf('/');
  const first = slash < 0 ? '' : reference.slice(0, slash);
  return first === 'localhost' || /[.:]/.test(first) ? first : 'docker.io';
}

/** Whether an engine's words mean that a registry wants a login, or another one. */
export function isUnauthorised(text: string): boolean {
  return NOT_AUTHORISED.test(text);
}

/** @param what what was asked for there, as the beginning of a sentence. */
export function unauthorised(host: string, what: string, details: Record<string, unknown>): DecantError {
  return new DecantError('UNAUTHORIZED', sentence(`Not authorised for ${host}: ${what}`), {
    hint: `Give a login for ${host}, or log in with docker login ${host}.`,
    details: { ...details, registry: host },
  });
}

/** The typed error for what an engine reported. `hidden` is a private directory that messages should not show. */
export function buildError(engine: string, report: FailureReport, hidden: string): DecantError {
  const clean = (text: string) => text.replaceAll(hidden, '').trim();
  const reason = clean(report.reason);
  const lastLines = report.lastLines.map(clean);
  const details = { engine, reason, lastLines };
  if (NO_SPACE.test(reason)) {
    return new DecantError('DISK_FULL', `No space is left where ${engine} keeps its images.`, {
      hint: 'Free some space, or give the engine a larger disk.',
      details,
    });
  }
  if (report.kind === 'step') {
    const { step, command = '', exitCode } = report;
    const shown = command.length > LONGEST_COMMAND ? `${command.slice(0, LONGEST_COMMAND)}…` : command;
    const why = exitCode === undefined ? `: ${reason}` : ` with exit code ${exitCode}`;
    return new DecantError('BUILD_STEP_FAILED', sentence(`Step ${step} (${shown}) failed${why}`), {
      hint: hintOfStep({ command, exitCode, reason, lastLines }),
      details: { ...details, step, command, exitCode: exitCode ?? null },
    });
  }
  if (report.kind === 'base' && isUnauthorised(reason)) {
    const image = report.image ?? '';
    return unauthorised(registryOf(image), `the base image ${image} could not be had`, { ...details, image });
  }
  const [code, message, hint] = OTHERS[report.kind]({ engine, image: report.image ?? '', reason });
  const image = report.image === undefined ? {} : { image: report.image };
  return new DecantError(code, sentence(message), { hint, details: { ...details, ...image } });
}

type Facts = { readonly engine: string; readonly image: string; readonly reason: string };

const OTHERS: Record<
  Exclude<FailureReport['kind'], 'step'>,
  (facts: Facts) => [code: ErrorCode, message: string, hint?: string]
> = {
  base: ({ image, reason }) => [
    'BUILD_BASE_UNAVAILABLE',
    `The base image ${image} could not be had: ${reason}`,
    'Load it into the engine first (docker load, docker import, buildah pull), or name a mirror that answers in FROM.',
  ],
  'front-end': ({ image, reason }) => [
    'DOCKERFILE_UNSUPPORTED',
    `The front end ${image} could not be had: ${reason}`,
    'Take the syntax line out of the Dockerfile.',
  ],
  invalid: ({ engine, reason }) => ['DOCKERFILE_INVALID', `${engine} cannot read the Dockerfile: ${reason}`],
  engine: ({ engine, reason }) => ['BUILD_ENGINE_MISSING', `${engine} does not answer: ${reason}`],
  other: ({ reason }) => ['BUILD_FAILED', `The build failed: ${reason === '' ? 'no reason given' : reason}`],
};

interface FailedStep {
  readonly command: string;
  readonly exitCode: number | undefined;
  readonly reason: string;
  readonly lastLines: readonly string[];
}

function hintOfStep({ command, exitCode, reason, lastLines }: FailedStep): string | undefined {
  if (NO_SPACE.test(lastLines.join('\n'))) return 'The disk of the engine may be full.';
  if (/^(COPY|ADD)\s/i.test(command)) return hintOfCopy(command, reason);
  return exitCode === 137 ? 'The step was killed, most often for want of memory.' : undefined;
}

function hintOfCopy(command: string, reason: string): string {
  if (/--chown/.test(command) && /\b(user|group|uid|gid)\b/i.test(reason)) {
    return 'Give --chown numbers, or a user and a group that the image has in /etc/passwd and /etc/group.';
  }
  if (/--from=/.test(command)) {
    return 'Check that --from names an earlier stage or an image that the engine has or can fetch, and that the source is in it.';
  }
  if (/\s(https?:\/\/|git@)/i.test(command)) return 'Check that the engine can reach that address, or COPY the file.';
  return 'Check that the source is in the context and that no ignore rule leaves it out.';
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
