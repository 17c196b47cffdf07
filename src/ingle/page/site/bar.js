// The bar above a conversation.

import { openDrawer } from "./list.js";
import { html, icon } from "./parts.js";

export function Bar({ title, model, temporary, begun, settings, setTemporary, begin }) {
  const pill = html`${icon("temporary")}<span>Temporary chat</span>`;
  return html`
    <header class="bar">
      <button class="quiet only-narrow" type="button" aria-label="Conversations" title="Conversations" onClick=${openDrawer}>${icon("menu")}</button>
      <h2 title=${title}>${title}</h2>
      ${!begun
        ? html`<button class="quiet pill" type="button" role="switch" aria-checked=${temporary ? "true" : "false"}
                       title="Nothing of a temporary chat is saved" onClick=${() => setTemporary(!temporary)}>${pill}</button>`
        : temporary && html`<span class="pill said" title="Gone when you leave it or close the tab">${pill}</span>`}
      <button class="quiet pill" type="button" aria-haspopup="dialog" title="Model and settings" onClick=${settings}>
        <span class="model">${model}</span>${icon("settings")}
      </button>
      <button class="quiet only-narrow" type="button" aria-label="New conversation" title="New conversation" onClick=${begin}>${icon("new")}</button>
    </header>`;
}
