// The whole tab: address, title, global keys, theme and connection.

const mac = /Mac|iPhone|iPad/.test(navigator.platform); // there Ctrl K deletes to the end of the line
const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]");

export default {
  props: { path: { type: String, default: "/" }, title: { type: String, default: "" } },
  emits: ["new", "stop", "go"],
  template: `<div class="offline" role="status" aria-live="polite"><span v-if="offline">No connection to Ingle. Trying again …</span></div>`,
  data: () => ({ offline: false }),
  watch: {
    path(path) {
      if (path !== location.pathname) history.pushState(null, "", path);
      document.body.classList.remove("drawer");
    },
    title: { handler: (title) => (document.title = title ? `${title} – Ingle` : "Ingle"), immediate: true },
  },
  mounted() {
    addEventListener("keydown", this.key);
    addEventListener("click", (event) => event.target.matches?.(".house") && document.body.classList.remove("drawer"));
    addEventListener("popstate", () => this.$emit("go", location.pathname.match(/^\/c\/(.+)/)?.[1] ?? ""));
    this.theme(localStorage.getItem("ingle.theme") || "system");
    addEventListener("ingle-theme", (event) => this.theme(event.detail));
    this.watchConnection();
  },
  methods: {
    key(event) {
      if (document.querySelector("dialog[open]") || event.isComposing || event.keyCode === 229) return;
      const command = mac ? event.metaKey : event.ctrlKey;
      const fresh = command ? event.key === "k" : event.key === "n" && !event.altKey && !typing(event.target);
      if (fresh) {
        event.preventDefault();
        this.$emit("new", "key");
      } else if (event.key === "Escape" && !event.defaultPrevented) {
        if (document.body.classList.contains("drawer")) document.body.classList.remove("drawer");
        else this.$emit("stop");
      }
    },
    theme(name) {
      localStorage.setItem("ingle.theme", name);
      document.documentElement.dataset.theme = name;
      if (window.setDark) setDark(name === "system" ? null : name === "dark");
    },
    watchConnection() {
      if (!window.socket) return void setTimeout(this.watchConnection, 50);
      let wait;
      window.socket.on("disconnect", () => {
        document.body.classList.add("cut"); // no action works now: see page.css
        wait = setTimeout(() => (this.offline = true), 700);
      });
      window.socket.on("connect", () => {
        clearTimeout(wait);
        document.body.classList.remove("cut");
        this.offline = false;
      });
    },
    leave() {
      location.href = "/sign-in?next=" + encodeURIComponent(location.pathname);
    },
  },
};
