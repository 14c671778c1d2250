import { DecantError } from '@decant/core';

import type { FailureReport } from './output/reader.ts';

const LONGEST_COMMAND = 160;

/** The typed error for what an engine reported. `hidden` is a private directory that messages should not show. */
export function buildError(engine: string, report: FailureReport, hidden: string): DecantError {
  const clean = (text: string) => text.replaceAll(hidden, '').trim();
  const reason = clean(report.reason);
  const lastLines = report.lastLines.map(clean);
  const details = { engine, reason, lastLines };
  if (/no space left on device|disk quota exceeded/i.test([reason, ...lastLines].join('\n'))) {
    return new DecantError('DISK_FULL', `No space is left where ${engine} keeps its images.`, {
      hint: 'Free some space, or give the engine a larger disk.',
      details,
    });
  }
  switch (report.kind) {
    case 'step': {
      const { step, command = '', exitCode } = report;
      const shown = command.length > LONGEST_COMMAND ? `${command.slice(0, LONGEST_COMMAND)}…` : command;
      const why = exitCode === undefined ? `: ${reason}` : ` with exit code ${exitCode}`;
      return new DecantError('BUILD_STEP_FAILED', sentence(`Step ${step} (${shown}) failed${why}`), {
        hint: hintOfStep(command, exitCode),
        details: { ...details, step, command, exitCode: exitCode ?? null },
      });
    }
    case 'base':
      return new DecantError(
        'BUILD_BASE_UNAVAILABLE',
        sentence(`The base image ${report.image} could not be had: ${reason}`),
        {
          hint: `Load it into ${engine.split(' ')[0]} first (docker load, docker import, buildah pull), or name a mirror that answers in FROM.`,
          details: { ...details, image: report.image },
        },
      );
    case 'front-end':
      return new DecantError(
        'DOCKERFILE_UNSUPPORTED',
        sentence(`The front end ${report.image} could not be had: ${reason}`),
        {
          hint: 'Take the syntax line out of the Dockerfile.',
          details: { ...details, image: report.image },
        },
      );
    case 'invalid':
      return new DecantError('DOCKERFILE_INVALID', sentence(`${engine} cannot read the Dockerfile: ${reason}`), {
        details,
      });
    case 'engine':
      return new DecantError('BUILD_ENGINE_MISSING', sentence(`${engine} does not answer: ${reason}`), { details });
    case 'other':
      return new DecantError(
        'BUILD_FAILED',
        sentence(`The build failed: ${reason === '' ? 'no reason given' : reason}`),
        { details },
      );
  }
}

function hintOfStep(command: string, exitCode: number | undefined): string | undefined {
  if (/^(COPY|ADD)\s/i.test(command)) {
    return 'Check that the source is in the context and that no ignore rule leaves it out.';
  }
  return exitCode === 137 ? 'The step was killed, most often for want of memory.' : undefined;
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
