package testreg

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
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
			case req.Header.Get("Authorization") != "Bearer "+r.token():
				refuse(w, fmt.Sprintf(`Bearer realm="%s/token",service="story"`, r.front.URL))
			default:
				next.ServeHTTP(w, req)
			}
		})
	}
	return next
}

func (r *Registry) knows(req *http.Request) bool {
	user, password, _ := req.BasicAuth()
	return user == r.options.User && password == r.options.Password
}

func (r *Registry) token() string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(r.options.User+":"+r.options.Password)))
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
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": r.token(), "access_token": r.token(), "expires_in": 300})
}

func refuse(w http.ResponseWriter, challenge string) {
	if challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
}
