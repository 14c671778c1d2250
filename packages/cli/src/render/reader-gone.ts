/*
 * What happens when the reader of standard output has gone (`decant image ls | head`). Most commands have nothing left to do
 * then. One whose output is another program's goes on, passes the news to that program, and ends as it does.
 */
let endsProcess = true;

/** From now on this process goes on without a reader of its standard output; writes tell of it. */
export function goOnWithoutReader(): void {
  endsProcess = false;
}

export function readerHasGone(): void {
  if (endsProcess) process.exit();
}
