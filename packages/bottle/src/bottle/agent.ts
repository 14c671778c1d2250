import { DecantError } from '@decant/core';

import type { BottleImage, ExecRequest } from '../backends/backend.ts';
import type { AgentPlan } from '../plan/plan.ts';
import type { RunAgentOptions } from './bottle.ts';

/** Where a prompt lies that is given in a file. */
export const PROMPT_PATH = '/tmp/decant-prompt';
const PROMPT_VARIABLE = 'DECANT_PROMPT_FILE';

export interface AgentRequest {
  readonly request: ExecRequest;
  /** Content of the file at {@link PROMPT_PATH}, to be put there before. */
  readonly promptFile?: string;
  /** All of its standard input. */
  readonly input?: string;
}

/**
 * The command of an agent with its prompt. A command of the plan or of the options stands for itself; without one it is
 * the image's entrypoint with its arguments.
 * @throws USAGE when there is none, or a prompt on standard input meets a terminal.
 */
export function agentRequest(
  { command, prompt, promptMode, user, workingDir }: AgentPlan,
  config: BottleImage['config'],
  { command: other, terminal, inheritStdin, signal }: RunAgentOptions,
): AgentRequest {
  const own = [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
  const argv = other ?? (command.length > 0 ? command : own);
  if (argv[0] === undefined || argv[0] === '') {
    throw new DecantError('USAGE', 'There is no command to run.', {
      hint: 'The image sets none: name one in the manifest or on the command line.',
    });
  }
  const request: ExecRequest = { argv, user, workingDir, terminal, inheritStdin, signal };
  if (prompt === undefined) return { request };
  if (promptMode === 'argument') return { request: { ...request, argv: [...argv, prompt] } };
  if (promptMode === 'file') {
    const env = { [PROMPT_VARIABLE]: PROMPT_PATH };
    return { request: { ...request, argv: [...argv, PROMPT_PATH], env }, promptFile: prompt };
  }
  if (terminal !== undefined) {
    throw new DecantError('USAGE', 'A prompt on standard input and a terminal exclude each other.', {
      hint: 'Give the prompt as an argument or in a file.',
    });
  }
  return { request: { ...request, inheritStdin: false }, input: prompt };
}
