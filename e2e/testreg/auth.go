package testreg

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// guarded lets in who shows the password, or a token got for it at /token.
// The specification: https://distribution.github.io/distribution/spec/auth/token/
func (r *Registry) guarded(next http.Handler) http.Handler {
	switch r.options.Auth {
	case "basic":
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !r.knows(req) {
				refuse(w, `Basic realm="story"`)
				return
			}
			next.ServeHTTP(w, req)
		})
	case "token":
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			switch {
			case req.URL.Path == "/token":
				r.issue(w, req)
			case !r.admits(req.Header.Get("Authorization")):
				refuse(w, r.challenge())
			default:
				next.ServeHTTP(w, req)
			}
		})
	}
	return next
}

// challenge to get a token.
func (r *Registry) challenge() string {
	return fmt.Sprintf(`Bearer realm=%q,service="story"`, cmp.Or(r.options.Realm, r.front.URL+"/token"))
}

// forgetTokens: none is good any more.
func (r *Registry) forgetTokens() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens = nil
}

func (r *Registry) knows(req *http.Request) bool {
	user, password, _ := req.BasicAuth()
	return user == r.options.User && password == r.options.Password
}

// token makes one that is good for a while.
func (r *Registry) token() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tokens == nil {
		r.tokens = map[string]time.Time{}
	}
	token := rand.Text()
	r.tokens[token] = time.Now().Add(cmp.Or(r.options.Life, lifetime))
	return token
}

// lifetime is what a token is promised to have.
const lifetime = 5 * time.Minute

func (r *Registry) admits(authorization string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.tokens[strings.TrimPrefix(authorization, "Bearer ")])
}

// issue answers GET with basic credentials, and POST with an OAuth2 password grant.
func (r *Registry) issue(w http.ResponseWriter, req *http.Request) {
	granted := r.knows(req)
	if req.Method == http.MethodPost {
		granted = req.PostFormValue("username") == r.options.User && req.PostFormValue("password") == r.options.Password
	}
	if !granted {
		refuse(w, "")
		return
	}
	token := r.token()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": lifetime.Seconds()})
}

func refuse(w http.ResponseWriter, challenge string) {
	if challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
}
