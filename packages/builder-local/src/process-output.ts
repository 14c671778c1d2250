import { isDecantError } from '@decant/core';

/** What a failed program wrote last, or the error's own message. */
export function lastLinesOf(error: unknown): string {
  if (isDecantError(error)) {
    const text = error.details['lastLines'];
    if (typeof text === 'string' && text !== '') return text;
  }
  return error instanceof Error ? error.message : String(error);
}

/** Whether a question succeeded; a failure that says `absent` is a no, any other is thrown. */
export async function succeeds(question: Promise<unknown>, absent: RegExp): Promise<boolean> {
  try {
    await question;
    return true;
  } catch (error) {
    if (isDecantError(error, 'PROCESS_FAILED') && absent.test(lastLinesOf(error))) return false;
    throw error;
  }
}
