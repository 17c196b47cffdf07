// The list of conversations at the side, search, Learning and sign-out.

import { Component, focusNew, html, icon, Sure } from "./parts.js";

const DAY = 86400000;

function groups(rows) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const made = [
    { name: "Pinned", takes: (row) => row.pinned },
    { name: "Today", takes: (row) => new Date(row.updated_at) >= midnight },
    { name: "Yesterday", takes: (row) => new Date(row.updated_at) >= midnight - DAY },
    { name: "Earlier", takes: () => true },
  ].map((group) => ({ ...group, rows: [] }));
  for (const row of rows) made.find((group) => group.takes(row)).rows.push(row);
  return made.filter((group) => group.rows.length);
}

const shut = () => document.body.classList.remove("drawer");

function signOut() {
  // What was typed is not for whoever signs in next.
  for (const name of Object.keys(sessionStorage)) if (name.startsWith("ingle.")) sessionStorage.removeItem(name);
}

export class List extends Component {
  state = { sought: "", renaming: "", title: "", doomed: null };

  search = ({ target }) => {
    this.setState({ sought: target.value });
    clearTimeout(this.wait);
    this.wait = setTimeout(() => this.props.search(this.state.sought.slice(0, 1000)), 200);
  };

  rename(row) {
    const { renaming, title } = this.state;
    if (renaming === row.id && title.trim() && title !== row.title) this.props.rename(row.id, title);
    this.setState({ renaming: "" });
  }

  go(event, row) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // in a tab of its own
    event.preventDefault();
    this.props.open(row.id);
    shut();
  }

  row(row) {
    const current = row.id === this.props.current;
    const escape = (event) => event.key === "Escape" && (event.stopPropagation(), this.setState({ renaming: "" }));
    const first = (box) => box && box !== this.named && ((this.named = box), focusNew(box, () => box.select()));
    return html`
      <li key=${row.id} class=${current ? "current" : ""}>
        ${this.state.renaming === row.id
          ? html`<form onSubmit=${(event) => (event.preventDefault(), this.rename(row))}>
              <input ref=${first} value=${this.state.title} maxlength="200" aria-label="Title" onKeyDown=${escape} onBlur=${() => this.rename(row)}
                     onInput=${({ target }) => this.setState({ title: target.value })} />
            </form>`
          : html`
            <a href=${this.props.href(row.id)} title=${row.title} aria-current=${current ? "page" : null} onClick=${(event) => this.go(event, row)}>
              ${row.title}${row.busy && html`<span class="busy" role="img" aria-label="An answer is being written"></span>`}
            </a>
            <button class="quiet" type="button" aria-label=${(row.pinned ? "Unpin " : "Pin ") + row.title} title=${row.pinned ? "Unpin" : "Pin"}
                    aria-pressed=${row.pinned ? "true" : "false"} onClick=${() => this.props.pin(row.id, !row.pinned)}>${icon("pin")}</button>
            <button class="quiet" type="button" aria-label=${"Rename " + row.title} title="Rename"
                    onClick=${() => this.setState({ renaming: row.id, title: row.title })}>${icon("pencil")}</button>
            <button class="quiet" type="button" aria-label=${"Delete " + row.title} title="Delete"
                    onClick=${() => this.setState({ doomed: row })}>${icon("trash")}</button>`}
      </li>`;
  }

  render({ rows, more, words, who }, { sought, doomed }) {
    const clear = (event) => event.key === "Escape" && (event.stopPropagation(), this.search({ target: { value: "" } }));
    return html`
      <aside class="side" aria-label="Conversations">
        <div class="head">
          <svg class="mark" aria-hidden="true"><use href="#i-hearth"></use></svg><span class="name">Ingle</span>
          <button class="quiet only-narrow" type="button" aria-label="Close" onClick=${shut}>${icon("close")}</button>
        </div>
        <button class="new" type="button" title="New conversation (Ctrl K)" onClick=${() => (this.props.begin(), shut())}>
          ${icon("new")}New conversation
        </button>
        <label class="search">${icon("search")}
          <input type="search" value=${sought} placeholder="Search" aria-label="Search conversations" maxlength="1000" onInput=${this.search} onKeyDown=${clear} />
        </label>
        <nav aria-label="Conversations">
          ${groups(rows).map((group) => html`<h3 key=${group.name}>${group.name}</h3><ul key=${group.name + " rows"}>${group.rows.map((row) => this.row(row))}</ul>`)}
          ${!rows.length && html`<p>${words ? "No conversation has these words." : "Your conversations appear here."}</p>`}
          ${more && html`<button class="quiet older" type="button" onClick=${this.props.older}>Older</button>`}
        </nav>
        <button class="quiet open-learning" type="button" aria-haspopup="dialog" onClick=${() => (this.props.learning(), shut())}>${icon("learning")}Learning</button>
        <a class="quiet open-account" href="/account">${icon("account")}Account</a>
        ${who && html`<form class="who" method="post" action="/sign-out" onSubmit=${signOut}><span title=${who}>${who}</span><button class="quiet">Sign out</button></form>`}
        <${Sure} label="Delete a conversation" verb="Delete" doomed=${doomed} close=${() => this.setState({ doomed: null })} act=${() => this.props.remove(doomed.id)}>
          <h2>Delete this conversation?</h2>
          <p>“${doomed?.title}” is deleted for good. Your ratings, corrections and memories from it stay: you can forget them under Learning.</p>
        <//>
      </aside>`;
  }
}

export function openDrawer() {
  document.body.classList.add("drawer");
  document.querySelector(".side .new").focus();
}

export const closeDrawer = shut;
