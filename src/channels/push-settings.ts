/** A Google service account, by which Firebase Cloud Messaging is called. */
export type ServiceAccount = {
  readonly projectId: string;
  readonly clientEmail: string;
  /** PEM. */
  readonly privateKey: string;
};

/** An account with Firebase Cloud Messaging. */
export type PushSettings = {
  readonly serviceAccount: ServiceAccount;
  /** Where FCM and Google's tokens are instead of at Google, by plain HTTP: the sandbox. */
  readonly baseUrl?: string | undefined;
  /** How long one sending may take, however many devices it goes to. */
  readonly timeoutMs: number;
};
