/** What the command's exit codes mean; `--help` shows the same. */
export const EXIT = { failed: 1, usage: 2, notRunning: 3 } as const;

/** The part of `--help` that explains them. */
export const EXIT_CODES_HELP = `
Exit codes: 0 done, ${EXIT.failed} failed, ${EXIT.usage} wrong usage or configuration, ${EXIT.notRunning} no instance is running.`;
